"""The command `client import`."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from csasn.errors import ConfigurationError, Stopped
from csasn.platform.command import Commands, add_command, bars_by_name, confirm

if TYPE_CHECKING:
    from client.importing.objects import Source
    from client.importing.run import Imported
    from client.importing.staging import Staging
    from csasn.site import Site
    from csasn.trust.pseudonyms import Pseudonyms

MAX_ROWS, MAX_REASONS = 20, 12  # named in a line; lines of reasons
DESCRIPTION = """\
Makes the images and the manifest.csv of this site, from a folder of DICOM files or from the archive (DICOMweb), and from a list of
what pathology found. Nothing of it leaves this machine.

The list is CSV with columns label and accession_number or patient_number, or both; and, where they are needed, nodule (or case) for
patients with more than one, split, image (SOP Instance UID) and frame. A folder is searched for DICOM files by their content; an
archive is asked for the studies of the list alone. Of stills the picture is taken, of a clip the frame that the list names or that
was measured, else --frames of them. What does not fit is never guessed: it is left out, counted and named by row of the list.

Pictures become 8-bit grey PNG without header, name or date; scanner and size of a pixel stay. Patient, case and image are named
by keyed hashes; the key, import.key in the site file's folder keys (0600), is made once and never leaves this machine. A picture
with suspected burned-in text is left out, or with --blank its lines with text are blackened. Both can miss text: a person has to
look at every picture of the contact sheets, and then approves, at once in a terminal or later with --approve.

It may be stopped at any time; the same command goes on where it stopped. The login of an archive is one line, NAME:PASSWORD or
"Bearer TOKEN", in a file of mode 0600 (--login) or in the environment (CSASN_ARCHIVE_LOGIN). Exit code 12: it cannot be reached."""
EXAMPLE = """client import --site centerA --dicom /mnt/export --labels pathology.csv
  client import --site centerA --dicomweb https://pacs.hospital.example/dicom-web --ca hospital-ca.pem --login login.txt \\
    --labels pathology.csv --out /srv/ultrasound
  client import --site centerA --approve
  client import --site centerA --pseudonyms < numbers.txt"""


def add_commands(commands: Commands) -> None:
    """Adds it to the command `client`."""
    from client.commands.enrolment import add_site_arguments

    parser = add_command(
        commands,
        "import",
        _import,
        "images and manifest from DICOM files or the archive, without identifiers",
        DESCRIPTION,
        EXAMPLE,
    )
    add_site_arguments(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dicom", type=Path, metavar="FOLDER", help="import the DICOM files of a folder and of those below it")
    what.add_argument("--dicomweb", metavar="URL", help="import from the archive at this base address of its DICOMweb")
    what.add_argument(
        "--approve", action="store_true", help="move what was imported into place, after looking at its contact sheets"
    )
    what.add_argument("--discard", action="store_true", help="remove what was imported and is not approved")
    what.add_argument(
        "--pseudonyms",
        action="store_true",
        help="read patient or accession numbers, one a line, from standard input, and write what stands for each in our tables",
    )
    parser.add_argument("--labels", type=Path, metavar="LIST", help="the pathology list (CSV)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="folder for images/ and manifest.csv (default: where the site file has them)"
    )
    parser.add_argument("--frames", type=_frames, default=3, metavar="N", help="evenly spaced frames of other clips (default 3)")
    parser.add_argument(
        "--blank", action="store_true", help="blacken lines with suspected text, in place of leaving such pictures out"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM file of the authority of the archive's certificate")
    parser.add_argument("--login", type=Path, metavar="FILE", help="file of mode 0600 with the archive's login")


def _frames(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 100")
    return int(text)


def _import(arguments: argparse.Namespace) -> None:
    from client.importing.staging import Staging
    from csasn.site import find_site
    from csasn.trust.pseudonyms import load_pseudonyms

    site = find_site(arguments.site, arguments.config)
    if arguments.pseudonyms:
        _look_up(load_pseudonyms(site.keys_folder))
        return
    staging = Staging(Path(os.path.abspath(arguments.out)) if arguments.out else _place(site))
    with staging.locked():
        if arguments.discard:
            staging.discard()
            sys.stdout.write(f"nothing waits for approval in {staging.out}\n")
        elif arguments.approve:
            _approve(site, staging)
        else:
            staging.require_free()
            _run(arguments, site, staging, load_pseudonyms(site.keys_folder))


def _run(arguments: argparse.Namespace, site: "Site", staging: "Staging", pseudonyms: "Pseudonyms") -> None:
    from client.importing.pathology import read_pathology
    from client.importing.run import Import, Options
    from client.importing.staging import GO_ON
    from csasn.data.withdrawals import Withdrawn

    if arguments.labels is None:
        raise ConfigurationError("an import needs the pathology list", "give it with --labels; its columns: client import --help")
    diagnoses = read_pathology(arguments.labels)
    source = _open_source(arguments)
    work = Import(site.site, source, staging, pseudonyms, Options(arguments.frames, arguments.blank), Withdrawn.of(site))
    try:
        with _quiet(), bars_by_name() as bar:
            imported = work.run(diagnoses, bar)
    except KeyboardInterrupt:
        raise Stopped("stopped", GO_ON) from None
    sys.stdout.write("\n".join(_summary(imported, staging)) + "\n")
    sys.stdout.flush()
    if sys.stdin.isatty():
        confirm("did you look at every picture, and may they be used?", "--approve")
        _approve(site, staging)
    else:
        sys.stdout.write(f"next: client import --site {site.site}{_out(arguments)} --approve\n")


def _open_source(arguments: argparse.Namespace) -> "Source":
    from client.importing.archive import Archive
    from client.importing.folder import Folder
    from client.importing.login import read_access

    if arguments.dicom:
        return Folder(arguments.dicom)
    return Archive(read_access(arguments.dicomweb, arguments.ca, arguments.login, os.environ))


def _place(site: "Site") -> Path:
    """The folder whose manifest.csv and images the site file names.

    Raises:
        ConfigurationError: it names other ones.
    """
    from client.importing.staging import IMAGES, MANIFEST

    manifest, images = Path(site.manifest), Path(site.images)
    if manifest.name != MANIFEST or images != manifest.parent / IMAGES:
        problem = f"the site file has the manifest not as {MANIFEST} beside a folder {IMAGES}"
        raise ConfigurationError(problem, "name a folder with --out, and what it will hold in the site file")
    return manifest.parent


def _approve(site: "Site", staging: "Staging") -> None:
    staging.approve()
    sys.stdout.write(f"images and manifest.csv are in {staging.out}\n")
    if staging.out / "manifest.csv" == Path(site.manifest):
        sys.stdout.write(f"next: client doctor --site {site.site}\n")
    else:
        sys.stdout.write("next: name them in the site file, with the keys manifest and images\n")


def _look_up(pseudonyms: "Pseudonyms") -> None:
    sys.stdout.write("patient_id,accession\n")
    for line in sys.stdin:
        if number := line.strip():
            sys.stdout.write(f"{pseudonyms.patient(number)},{pseudonyms.accession(number)}\n")


def _summary(imported: "Imported", staging: "Staging") -> list[str]:
    """What came of it, in counts and rows of the list."""
    from client.importing.run import count_reasons

    labels = ", ".join(f"{label or 'without label'} {number}" for label, number in imported.labels.items())
    num_cases = sum(imported.labels.values())
    lines = [f"found: {imported.num_objects} DICOM objects"]
    lines += [f"taken: {len(imported.rows)} pictures of {num_cases} cases of {imported.num_patients} patients; cases: {labels}"]
    if counts := count_reasons(imported.pictures):
        lines.append(f"left out: {sum(counts.values())}")
        lines += [f"  {number:5}  {reason}" for reason, number in list(counts.items())[:MAX_REASONS]]
    for reason in count_reasons(imported.diagnoses):
        rows = sorted(row for entry in imported.diagnoses if entry.reason == reason for row in entry.rows)
        more = f" and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
        lines.append(f"list, {_rows(rows)}{', '.join(map(str, rows[:MAX_ROWS]))}{more}: {reason}")
    if imported.pictures or imported.diagnoses:
        lines.append(f"all of that: {staging.folder / 'left-out.csv'}")
    sheets = "contact-sheet-001.png" if imported.sheets == 1 else f"contact-sheet-001.png to {imported.sheets:03}"
    return [*lines, f"look at every picture: {staging.folder / sheets}"]


def _rows(rows: list[int]) -> str:
    return "row " if len(rows) == 1 else "rows "


def _out(arguments: argparse.Namespace) -> str:
    return f" --out {arguments.out}" if arguments.out else ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what libraries say while the block lasts: it may quote a header, or an address with a UID in it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
