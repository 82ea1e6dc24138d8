"""The archive that `client doctor --bundle` writes to send for help: what was found, versions, the site file, the ends of the logs.

Logs hold no identifiers by design; still a line goes that holds a case id or image of the manifest, the home or image folder, or
what looks like a key. Paths are cut down to their last name. No file of the keys, kit, cache, images or manifest is opened for
its content to go in. A name of one or two characters counts where it stands alone: inside a longer word it cannot be told.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import distributions
from io import BytesIO
from pathlib import Path, PurePosixPath

from csasn.data.manifest import Manifest, Row
from csasn.platform.configuration import write_yaml
from csasn.platform.storage import write_new
from csasn.site import Site

LAST_LINES, LAST_BYTES = 200, 256 << 10  # of each log
_PATH = re.compile(r"(?<![\w.:/])(?:/[^\s/'\",;:()]+)+/([^\s/'\",;:()]+)")
_SECRET = re.compile(r"PRIVATE KEY|\b(?![0-9a-f]+\b)[A-Za-z0-9+/=]{40,}")  # base64; hashes are in hexadecimal

Findings = Sequence[dict[str, str]]


class Scrubber:
    """Knows what may not leave: names of the manifest, and two folders."""

    def __init__(self, site: Site, manifest: Manifest) -> None:
        names = {name for row in manifest.rows for name in _names(row)}
        self._long = sorted(name for name in names if len(name) > 2)
        short = "|".join(re.escape(name) for name in sorted(names) if len(name) <= 2)
        self._short = re.compile(rf"(?<!\w)(?:{short})(?!\w)", re.IGNORECASE) if short else None
        self._folders = [str(Path.home()), site.images]

    def is_clean(self, line: str) -> bool:
        """Whether a line may leave."""
        lowered = line.lower()
        if any(folder in line for folder in self._folders) or _SECRET.search(line):
            return False
        return not any(name in lowered for name in self._long) and not (self._short and self._short.search(line))

    def lines(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines that may leave, paths cut down; the last line says how many went."""
        dropped = 0
        for line in lines:
            if self.is_clean(line):
                yield cut_paths(line)
            else:
                dropped += 1
        if dropped:
            yield f"({dropped} lines left out)"

    def findings(self, findings: Findings) -> list[dict[str, str]]:
        """The findings, each text that may not leave replaced."""
        return [{key: self._text(key, cut_paths(value)) for key, value in finding.items()} for finding in findings]

    def _text(self, key: str, value: str) -> str:
        return value if key in ("check", "status") or self.is_clean(value) else "(left out)"


def cut_paths(text: str) -> str:
    """`text` with each absolute path reduced to its last name."""
    return _PATH.sub(r"\1", text)


def gather(findings: Findings, site: Site | None, manifest: Manifest | None) -> dict[str, bytes]:
    """The files of the archive. Without the manifest nobody knows what to leave out, so that logs and texts stay away."""
    scrubber = Scrubber(site, manifest) if site and manifest else None
    said = scrubber.findings(findings) if scrubber else [{key: found[key] for key in ("check", "status")} for found in findings]
    packages = sorted({f"{package.name}=={package.version}" for package in distributions()}, key=str.lower)
    files = {"doctor.json": json.dumps(said, indent=1), "packages.txt": "\n".join(packages) + "\n"}
    if site:
        files["site.yaml"] = write_yaml(_without_private(site))
    if site and scrubber:
        for log in sorted((Path(site.state) / "logs").glob("*.log")):
            files[f"logs/{log.name}"] = "".join(f"{line}\n" for line in scrubber.lines(_last_lines(log)))
    return {name: text.encode() for name, text in files.items()}


def write_bundle(path: Path, files: dict[str, bytes], say: Callable[[str], object]) -> None:
    """Lists the files, then writes them as a zip archive for its owner alone.

    Raises:
        StorageError: `path` is there already, or cannot be written.
    """
    say(f"{path} holds, for you to look at before you send it:")
    for name, content in files.items():
        say(f"  {name}, {len(content)} bytes")
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    write_new(path, archive.getvalue(), 0o600)


def _names(row: Row) -> Iterator[str]:
    """How a log could name a row: case, patient, image, its file name, and that without its ending."""
    file = PurePosixPath(row.image)
    yield from {name.lower() for name in (row.case, row.patient, row.image, file.name, file.stem) if name}


def _without_private(site: Site) -> Site:
    keys = [key for key in ("manifest", "images", "state", "keys", "kit") if getattr(site, key)]
    labels = {f"word {number}": name for number, name in enumerate(site.labels.values(), 1)}  # a hospital's own words stay there
    return site.model_copy(update={key: Path(getattr(site, key)).name for key in keys} | {"labels": labels})


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LAST_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return lines[1 if size > LAST_BYTES else 0 :][-LAST_LINES:]
