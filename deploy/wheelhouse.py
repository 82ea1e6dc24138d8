"""Writes requirements.txt into a folder of wheels: each pinned to its version and SHA-256, for `pip install --require-hashes`.

A wheel whose licence may not be passed on (licences.py) ends it.

python deploy/wheelhouse.py FOLDER
"""

import hashlib
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from packaging.utils import parse_wheel_filename

import licences


def requirement(wheel: Path) -> str:
    """The line that takes this file and no other."""
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def metadata(wheel: Path) -> Message:
    """What the package in a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def main() -> None:
    """Entry point."""
    folder = Path(sys.argv[1])
    wheels = sorted(folder.glob("*.whl"))
    if faults := [fault for wheel in wheels if (fault := licences.fault(metadata(wheel)))]:
        sys.exit(f"{folder}: {'; '.join(faults)}; see deploy/licences.py")
    lines = [requirement(wheel) for wheel in wheels]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    print(f"{folder}: {len(lines)} wheels, {sum(wheel.stat().st_size for wheel in folder.glob('*.whl')) / 1e6:.0f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
