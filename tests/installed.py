"""What is installed with our wheel."""

from collections.abc import Iterable
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "csasn-federated"


def closure(name: str, extras: Iterable[str] = ()) -> dict[str, Message]:
    """Metadata of all that the installed package `name` asks for here, directly or not; those not installed are left out."""
    found: dict[str, Message] = {}
    done, waiting = set(), [(canonicalize_name(name), extra) for extra in ("", *extras)]
    while waiting:
        key, extra = waiting.pop()
        if (key, extra) in done:
            continue
        done.add((key, extra))
        try:
            package = distribution(key)
        except PackageNotFoundError:
            continue
        found[key] = package.metadata
        for line in package.requires or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(wanted.name), each) for each in ("", *wanted.extras)]
    found.pop(canonicalize_name(name))
    return found
