"""What a study may name and others can add: rules of the server, local objectives, class weightings, networks.

Each built-in entry is one line here. An installed package adds its own by an entry point of the same group and form, in its
pyproject.toml: `[project.entry-points."csasn.server_rules"]`, then `name = "module:object"`. What is built in cannot be replaced.
An entry is loaded where it is used first, so that a study is read without torch. Nothing that comes over the network is loaded.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from csasn.errors import ConfigurationError

T = TypeVar("T")
TIMM_NAME = re.compile(r"[a-z0-9][a-z0-9_]{1,62}(\.[a-z0-9_]{1,62})?")
SERVER_RULES, LOCAL_OBJECTIVES = "csasn.server_rules", "csasn.local_objectives"
CLASS_WEIGHTINGS, NETWORKS = "csasn.class_weightings", "csasn.networks"

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    SERVER_RULES: {
        "fedavg": "csasn.federated.server_rules.fedavg:FEDAVG",
        "fedavgm": "csasn.federated.server_rules.fedavgm:FEDAVGM",
        "averaged": "csasn.federated.server_rules.averaged:AVERAGED",
        "fedadagrad": "csasn.federated.server_rules.fedadagrad:FEDADAGRAD",
        "fedadam": "csasn.federated.server_rules.fedadam:FEDADAM",
        "fedyogi": "csasn.federated.server_rules.fedyogi:FEDYOGI",
        "feddyn": "csasn.federated.server_rules.feddyn:FEDDYN_RULE",
    },
    LOCAL_OBJECTIVES: {
        "fedprox": "csasn.learning.objectives.fedprox:FEDPROX",
        "feddyn": "csasn.learning.objectives.feddyn:FEDDYN",
        "scaffold": "csasn.learning.objectives.scaffold:SCAFFOLD",
    },
    CLASS_WEIGHTINGS: {
        "dynamic": "csasn.federated.class_weightings.dynamic:DYNAMIC",
        "static": "csasn.federated.class_weightings.static:STATIC",
        "balanced": "csasn.federated.class_weightings.balanced:BALANCED",
        "none": "csasn.federated.class_weightings.static:NONE",
    },
    NETWORKS: {
        "csasn-b2-vitb": "csasn.model.profiles:B2_VITB",
        "csasn-lite": "csasn.model.profiles:LITE",
        "csasn-small": "csasn.model.profiles:SMALL",
        "csasn-test": "csasn.model.profiles:TEST",
    },
}


def names(group: str) -> tuple[str, ...]:
    """What a study may name: what is built in, and what packages add."""
    return (*BUILT_IN[group], *sorted(entry_points(group=group).names - set(BUILT_IN[group])))


def check_name(group: str, name: str) -> str:
    """The name itself, if it is known.

    Raises:
        ValueError: nobody provides it; the known names are listed.
    """
    if name in BUILT_IN[group] or name in entry_points(group=group).names:
        return name
    known = [repr(one) for one in names(group)]
    raise ValueError("expected " + " or ".join(filter(None, (", ".join(known[:-1]), known[-1]))))


def check_branch(value: object) -> bool | str:
    """What stands in a branch's place: true, false, or a network of timm by name. Only its form: timm itself is asked where the
    network is built.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, bool) or (isinstance(value, str) and TIMM_NAME.fullmatch(value)):
        return value
    raise ValueError("expected true, false, or the name of a network of timm, such as resnet18")


def load(group: str, name: str, kind: type[T]) -> T:
    """The entry of this name, an object of `kind`.

    Raises:
        ConfigurationError: nobody provides it, it cannot be loaded, or it is of another kind.
    """
    found = _load(group, name)
    if not isinstance(found, kind):
        raise ConfigurationError(f"{name!r} of {group} is a {type(found).__name__}, expected a {kind.__name__}", "see its package")
    return found


@cache
def _load(group: str, name: str) -> object:
    try:
        check_name(group, name)
    except ValueError as error:
        raise ConfigurationError(f"{name!r} is no entry of {group}: {error}", "install the package that provides it") from None
    built_in = BUILT_IN[group].get(name)
    entry = EntryPoint(name, built_in, group) if built_in else entry_points(group=group)[name]
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{name!r} of {group} cannot be loaded from {entry.value}", "install its package again") from error
