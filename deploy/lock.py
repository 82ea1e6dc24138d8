"""Writes requirements.lock: each package that an installation needs, in the version that is installed and so tested here, with the
SHA-256 of every file that the package index has of it.

python deploy/lock.py

PyTorch is left to requirements-torch.txt, by version alone: whether it is built for CPUs or for one version of CUDA is for whoever
installs to say, and such builds come from other indexes. Its packages of CUDA are left out with it.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCK, TORCH_LOCK = ROOT / "requirements.lock", ROOT / "requirements-torch.txt"
EXTRAS = ("weights", "archive")
TORCH = ("torch", "torchvision")
OF_TORCH = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")
_HEAD = "# Made by `make lock`: what is installed, with the hashes of every file of that version. Without PyTorch: {torch}\n"
_TORCH_HEAD = "# Made by `make lock`. Without hashes: those of builds for CPUs and for each CUDA differ.\n"


def entries(text: str) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    """Each requirement of a lock file, with its hashes."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            wanted, *hashes = line.split("--hash=")
            yield Requirement(wanted.strip()), tuple(each.strip() for each in hashes)


def compiled(constraints: Iterable[str]) -> str:
    """What uv, which comes with Flower, resolves of pyproject.toml for all of its environments, under `constraints`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        extras = [f"--extra={extra}" for extra in EXTRAS]
        options = ["--universal", "--generate-hashes", "--no-annotate", "--no-header", "--quiet", f"--constraint={file.name}"]
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *extras, *options]
        return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - ours


def for_any(found: Iterable[tuple[Requirement, tuple[str, ...]]]) -> Iterator[tuple[Requirement, tuple[str, ...]]]:
    """The entries without their markers, which say what pyproject.toml's `environments` do, or leave out what does no harm.

    Raises:
        ValueError: a package is there in several versions, one for each Python.
    """
    names = set()
    for wanted, hashes in found:
        if wanted.name in names:
            raise ValueError(f"{wanted.name} has several versions")
        names.add(wanted.name)
        yield Requirement(f"{wanted.name}{wanted.specifier}"), hashes


def shown(wanted: Requirement, hashes: Iterable[str]) -> str:
    """An entry as pip reads it."""
    return " \\\n".join([str(wanted), *(f"    --hash={each}" for each in hashes)]) + "\n"


def main() -> None:
    """Entry point."""
    here = [f"{each.metadata['Name']}=={Version(each.version).public}" for each in distributions()]
    found = [entry for entry in entries(compiled(here)) if not OF_TORCH.fullmatch(canonicalize_name(entry[0].name))]
    LOCK.write_text(_HEAD.format(torch=TORCH_LOCK.name) + "".join(shown(*entry) for entry in for_any(found)))
    TORCH_LOCK.write_text(_TORCH_HEAD + "".join(f"{name}=={Version(version(name)).public}\n" for name in TORCH))


if __name__ == "__main__":
    main()
