"""Writes requirements.txt into a folder of wheels: each pinned to its version and SHA-256, for `pip install --require-hashes`.

python deploy/wheelhouse.py FOLDER
"""

import hashlib
import sys
from pathlib import Path

from packaging.utils import parse_wheel_filename


def requirement(wheel: Path) -> str:
    """The line that takes this file and no other."""
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def main() -> None:
    """Entry point."""
    folder = Path(sys.argv[1])
    lines = [requirement(wheel) for wheel in sorted(folder.glob("*.whl"))]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    print(f"{folder}: {len(lines)} wheels, {sum(wheel.stat().st_size for wheel in folder.glob('*.whl')) / 1e6:.0f} MB")  # noqa: T201


if __name__ == "__main__":
    main()
