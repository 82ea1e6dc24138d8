"""Makes of a folder of wheels the package that a hospital is handed: how to install it, and whether a machine can; guide, protocol,
and files to fill in.

FOLDER holds wheels/. It gets requirements.txt, each wheel pinned to its version and SHA-256 for `pip install --require-hashes`, and
SHA256SUMS over everything; then it is named after LINK and what its wheels need, and LINK points to it. A wheel whose licence may
not be passed on (licences.py) ends it.

python deploy/wheelhouse.py FOLDER LINK
"""

import platform
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

import licences
import man
from client.commands.keys import HEAD as SITE_HEAD
from csasn.commands.keys import HEAD as STUDY_HEAD
from csasn.platform.keys import template
from csasn.platform.storage import file_sha256
from csasn.site import Site
from csasn.study import Study

ROOT = Path(__file__).resolve().parent.parent
NOT_PASSED_ON = ("*.py", "*.sh", "pictures", "package", "__pycache__")  # of deploy/: what is for the source alone
OLD_NAMES = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
PLATFORM = re.compile(r"(?:manylinux_(\d+)_(\d+)|(manylinux\d+)|linux)_(.+)")
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class MadeFor:
    """What a machine needs for all of the wheels: minor version of CPython, CPU, and glibc at least."""

    python: str
    cpu: str
    glibc: str

    @property
    def name(self) -> str:
        """In the name of the folder."""
        return f"cp{self.python.replace('.', '')}-{self.cpu}-glibc{self.glibc}"


def made_for(wheels: Iterable[Path]) -> MadeFor:
    """What these wheels need: the newest glibc that one of them asks for. Where none says anything, it is this machine's.

    Raises:
        SystemExit: there is no machine for all of them.
    """
    tags = [parse_wheel_filename(wheel.name)[3] for wheel in wheels]
    needs = [_platform(of) for of in tags if not any(tag.platform == "any" for tag in of)]
    pythons = {tag.interpreter[2:] for of in tags for tag in of if tag.abi == tag.interpreter and tag.interpreter.startswith("cp")}
    cpus = {cpu for _, cpu in needs} or {platform.machine()}
    if len(pythons) > 1 or len(cpus) > 1:
        sys.exit(f"wheels are for CPython {sorted(pythons)} and CPUs {sorted(cpus)}, expected one of each: begin anew")
    (digits,) = pythons or {f"{sys.version_info.major}{sys.version_info.minor}"}
    major, minor = max(glibc for glibc, _ in needs) if needs else (2, 17)
    return MadeFor(f"{digits[0]}.{digits[1:]}", cpus.pop(), f"{major}.{minor}")


def _platform(tags: frozenset[Tag]) -> tuple[tuple[int, int], str]:
    """The oldest glibc that a wheel with these tags takes, and its CPU; one that was built here asks for this machine's."""
    here = platform.libc_ver()[1].split(".")
    found = [match for tag in tags if (match := PLATFORM.fullmatch(tag.platform))]
    return min(
        ((int(one[1]), int(one[2])) if one[1] else OLD_NAMES.get(one[3], (int(here[0]), int(here[1]))), one[4]) for one in found
    )


def requirement(wheel: Path) -> str:
    """The line that takes this file and no other."""
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} --hash=sha256:{file_sha256(wheel)}"


def metadata(wheel: Path) -> Message:
    """What the package in a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def fill(folder: Path, needed: MadeFor) -> None:
    """Writes all but the wheels and the sums: what to type comes from the guide's first section."""
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns(*NOT_PASSED_ON))
    (folder / "csasn").mkdir()
    shutil.copy(ROOT / "csasn/SPEC.md", folder / "csasn")
    guide = (ROOT / "deploy/README.md").read_text()
    (first,) = re.findall(r"(?ms)^## 1 .*?(?=^## )", guide)
    (folder / "INSTALL.md").write_text("# " + first.removeprefix("## 1 ").replace("3.11", needed.python).rstrip() + "\n")
    check = (ROOT / "deploy/package/check.sh").read_text()
    for key, value in asdict(needed).items():
        check = check.replace(f"@{key.upper()}@", value)
    (folder / "check.sh").write_text(check)
    man.write(folder / "share/man")
    (folder / "study.yaml").write_text("\n".join(template(Study, STUDY_HEAD)) + "\n")
    (folder / "site.yaml").write_text("\n".join(template(Site, SITE_HEAD)) + "\n")


def seal(folder: Path) -> str:
    """Writes SHA256SUMS over every other file, and gives its own hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    (folder / SUMS).write_text("".join(f"{file_sha256(path)}  {path.relative_to(folder)}\n" for path in files))
    return file_sha256(folder / SUMS)


def main() -> None:
    """Entry point."""
    folder, link = map(Path, sys.argv[1:])
    wheels = sorted(folder.glob("wheels/*.whl"))
    if faults := [fault for wheel in wheels if (fault := licences.fault(metadata(wheel)))]:
        sys.exit(f"{folder}: {'; '.join(faults)}; see deploy/licences.py")
    (folder / "requirements.txt").write_text("".join(f"{requirement(wheel)}\n" for wheel in wheels))
    needed = made_for(wheels)
    fill(folder, needed)
    sums = seal(folder)
    place = link.with_name(f"{link.name}-{needed.name}")
    shutil.rmtree(place, ignore_errors=True)
    folder.rename(place)
    link.unlink(missing_ok=True)
    link.symlink_to(place.name)
    size = sum(path.stat().st_size for path in place.rglob("*")) / 1e6
    print(  # noqa: T201
        f"{place}: {len(wheels)} wheels, {size:.0f} MB, for CPython {needed.python}, {needed.cpu}, glibc {needed.glibc} or newer",
        f"SHA-256 of {place / SUMS}, to be compared by telephone with whoever installs it:",
        f"  {sums}",
        sep="\n",
    )


if __name__ == "__main__":
    main()
