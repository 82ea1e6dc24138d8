"""Reading YAML into frozen models, with errors that name file, key, value and what was expected."""

import json
import re
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from csasn.errors import ConfigurationError


class Configuration(BaseModel):
    """Base of every configuration model: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


C = TypeVar("C", bound=Configuration)
MAX_FILE_BYTES = 512 << 10  # some ten seconds of parsing at worst; 1024 sites and 256 classes take a fifth of it
_USERINFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|).*@", re.DOTALL)
MAX_FAULTS, MAX_SHOWN = 10, 200  # faults of a file, and characters of a text out of it, in one message


class _OnceLoader(yaml.SafeLoader):
    """A safe loader without aliases and tags, which a configuration needs not and a bomb does; a key written twice is refused."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise yaml.constructor.ConstructorError(None, None, "aliases and tags are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is repeated or not text", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_OnceLoader` would take for a number."""


for _side in (_OnceLoader, _Dumper):
    # YAML 1.1 takes 1e-4 for text, since it has no point; people and YAML 1.2 take it for a number
    _side.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))


def read_yaml(path: Path) -> dict[str, object]:
    """The mapping in a YAML file.

    Raises:
        ConfigurationError: the file is missing, larger than 512 KiB, not UTF-8, not YAML, not a mapping, or holds what cannot be.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes", "is this the right file?")
        data = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        problem = _shown(getattr(error, "problem", None) or "it cannot be parsed")
        raise ConfigurationError(f"{path.name} is not valid YAML at {where}: {problem}", "check indentation and colons") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path.name} is not a YAML text file", "save it as UTF-8 text") from error
    except (RecursionError, ValueError) as error:
        problem = "holds a date or number that cannot be, or is nested too deeply"
        raise ConfigurationError(f"{path.name} {problem}", "quote what is meant as text") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path.name} holds {type(data).__name__}, expected keys and values", "see --help for an example")
    return data


def _parse(text: str) -> object:
    """The YAML in `text` as JSON has it: dates are text, and a number is one that can be written down.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: a date or a number is impossible.
        RecursionError: it is nested too deeply.
    """
    return json.loads(json.dumps(yaml.load(text, Loader=_OnceLoader), default=str))  # noqa: S506 - a SafeLoader subclass


def write_yaml(model: Configuration) -> str:
    """`model` as text that `read_yaml` reads back to the same values."""
    return str(yaml.dump(model.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def set_keys(data: dict[str, object], changes: tuple[str, ...]) -> dict[str, object]:
    """A copy of `data` in which each `key.subkey=value` of `changes` is set; values are read as YAML."""
    result = json.loads(json.dumps(data, default=str))
    for change in changes:
        dotted, separator, text = change.partition("=")
        if not separator or not dotted:
            raise ConfigurationError(f"--set {change!r} is not key=value", "write for example --set federation.rounds=5")
        *parents, last = dotted.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigurationError(f"--set {dotted}: {parent!r} is a value, not a group of keys", "see the study file")
        try:
            place[last] = _parse(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise ConfigurationError(
                f"--set {_shown(dotted)}: {_shown(text)!r} is not a YAML value", "quote text that holds colons"
            ) from error
    return dict(result)


def validate(model: type[C], data: dict[str, object], source: str) -> C:
    """`data` as a `model`; `source` is the file name that errors mention.

    Raises:
        ConfigurationError: unknown key, wrong type, value out of range or impossible combination; ten faults are listed.
    """
    try:
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        faults = [_describe(fault) for fault in found[:MAX_FAULTS]]
        faults += [f"and {len(found) - MAX_FAULTS} more"] if len(found) > MAX_FAULTS else []
        raise ConfigurationError(f"{source}: " + "; ".join(faults), f"correct {source} and try again") from error


def _describe(fault: object) -> str:
    assert isinstance(fault, dict)
    key = _shown(".".join(str(part) for part in fault["loc"])) or "the whole file"
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    if fault["type"] == "missing":
        return f"{key} is missing"
    expected = _shown(str(fault["msg"]).removeprefix("Value error, "))
    value = repr(_without_userinfo(fault["input"]))
    shown = "" if fault["type"] == "value_error" and isinstance(fault["input"], dict) else f" is {value[:80]}:"
    return f"{key}{shown} {expected[0].lower()}{expected[1:]}"


def _without_userinfo(value: object) -> object:
    """`value` with `***` for what stands before an @ in each of its texts, as a name and password do in an address."""
    match value:
        case str():
            return _USERINFO.sub(r"\1***@", value)
        case list():
            return [_without_userinfo(item) for item in value]
        case dict():
            return {_without_userinfo(key): _without_userinfo(item) for key, item in value.items()}
    return value


def _shown(text: str) -> str:
    """`text` short enough for a line, without line breaks, commands to a terminal, or halves of characters."""
    short = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)
