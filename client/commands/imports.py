"""The command `client import`."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from client.commands.enrolment import SiteFile, SiteName, open_site
from csasn.errors import ConfigurationError, Stopped
from csasn.platform.terminal import bar, confirm, option, progress_bars, say

if TYPE_CHECKING:
    from client.importing.objects import Source
    from client.importing.run import Imported, Options
    from client.importing.staging import Staging
    from csasn.site import Site
    from csasn.trust.pseudonyms import Pseudonyms

MAX_ROWS, MAX_REASONS = 20, 12  # named in a line; lines of reasons
MORE = """\
Makes the images and the manifest.csv of this site, from a folder of DICOM files or from the archive (DICOMweb), and from a
list of what pathology found. Nothing of it leaves this machine.

The list is CSV with columns label and accession_number or patient_number, or both; and, where they are needed, nodule (or
case) for patients with more than one, split, image (SOP Instance UID) and frame. A folder is searched for DICOM files by
their content; an archive is asked for the studies of the list alone. Of stills the picture is taken, of a clip the frame
that the list names or that was measured, else --frames of them. What does not fit is never guessed: it is left out, counted
and named by row of the list.

Pictures become 8-bit grey PNG without header, name or date; scanner and size of a pixel stay. Patient, case and image are
named by keyed hashes; the key, import.key in the site file's folder keys (0600), is made once and never leaves this
machine. A picture with suspected burned-in text is left out, or with --blank its lines with text are blackened. Both can
miss text: a person has to look at every picture of the contact sheets, and then approves, at once in a terminal or later
with --approve.

It may be stopped at any time; the same command goes on where it stopped. The login of an archive is one line, NAME:PASSWORD
or "Bearer TOKEN", in a file of mode 0600 (--login) or in the environment (CSASN_ARCHIVE_LOGIN). Exit code 12: it cannot be
reached.

example:
  client import --site centerA --dicom /mnt/export --labels pathology.csv
  client import --site centerA --dicomweb https://pacs.hospital.example/dicom-web --ca hospital-ca.pem --login login.txt \\
    --labels pathology.csv --out /srv/ultrasound
  client import --site centerA --approve
  client import --site centerA --pseudonyms < numbers.txt
"""


def import_(
    site: SiteName,
    dicom: Annotated[Path | None, option("--dicom FOLDER", "import the DICOM files of a folder and of those below it")] = None,
    dicomweb: Annotated[
        str | None, option("--dicomweb URL", "import from the archive at this base address of its DICOMweb")
    ] = None,
    approve: Annotated[bool, option("--approve", "move what was imported into place, after looking at its contact sheets")] = False,
    discard: Annotated[bool, option("--discard", "remove what was imported and is not approved")] = False,
    pseudonyms: Annotated[
        bool,
        option(
            "--pseudonyms",
            "read patient or accession numbers, one a line, from standard input, and write what stands for each in our tables",
        ),
    ] = False,
    labels: Annotated[Path | None, option("--labels LIST", "the pathology list (CSV)")] = None,
    out: Annotated[
        Path | None, option("--out FOLDER", "folder for images/ and manifest.csv (default: where the site file has them)")
    ] = None,
    frames: Annotated[int, option("--frames N", "evenly spaced frames of other clips (default 3)", numbers=(1, 100))] = 3,
    blank: Annotated[bool, option("--blank", "blacken lines with suspected text, in place of leaving such pictures out")] = False,
    ca: Annotated[Path | None, option("--ca FILE", "PEM file of the authority of the archive's certificate")] = None,
    login: Annotated[Path | None, option("--login FILE", "file of mode 0600 with the archive's login")] = None,
    config: SiteFile = None,
) -> None:
    """Images and manifest from DICOM files or the archive, without identifiers."""
    from client.importing.run import Options
    from client.importing.staging import Staging
    from csasn.trust.pseudonyms import load_pseudonyms

    opened = open_site(site, config)
    if pseudonyms:
        _look_up(load_pseudonyms(opened.keys_folder))
        return
    staging = Staging(Path(os.path.abspath(out)) if out else _place(opened))
    with staging.locked():
        if discard:
            staging.discard()
            say(f"nothing waits for approval in {staging.out}")
        elif approve:
            _approve(opened, staging)
        else:
            staging.require_free()
            source = partial(_open_source, dicom, dicomweb, ca, login)
            _take(opened, staging, source, labels, Options(frames, blank))
            _let_approve(opened, staging, out)


def _take(site: "Site", staging: "Staging", open_source: "Callable[[], Source]", labels: Path | None, options: "Options") -> None:
    """Imports into the staging folder, and says what came of it."""
    from client.importing.pathology import read_pathology
    from client.importing.run import Import
    from client.importing.staging import GO_ON
    from csasn.data.withdrawals import Withdrawn
    from csasn.trust.pseudonyms import load_pseudonyms

    pseudonyms = load_pseudonyms(site.keys_folder)
    if labels is None:
        raise ConfigurationError("an import needs the pathology list", "give it with --labels; its columns: client import --help")
    diagnoses = read_pathology(labels)
    work = Import(site.site, open_source(), staging, pseudonyms, options, Withdrawn.of(site))
    try:
        with _quiet(), progress_bars(transient=True) as bars:
            imported = work.run(diagnoses, partial(bar, bars))
    except KeyboardInterrupt:
        raise Stopped("stopped", GO_ON) from None
    say(*_summary(imported, staging))


def _open_source(dicom: Path | None, dicomweb: str | None, ca: Path | None, login: Path | None) -> "Source":
    from client.importing.archive import Archive
    from client.importing.folder import Folder
    from client.importing.login import read_access

    return Folder(dicom) if dicom else Archive(read_access(str(dicomweb), ca, login, os.environ))


def _let_approve(site: "Site", staging: "Staging", out: Path | None) -> None:
    """Asks for approval at a terminal, else says how it is given."""
    if sys.stdin.isatty():
        confirm("did you look at every picture, and may they be used?", "--approve")
        _approve(site, staging)
    else:
        say(f"next: client import --site {site.site}{f' --out {out}' if out else ''} --approve")


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
    say(f"images and manifest.csv are in {staging.out}")
    if staging.out / "manifest.csv" == Path(site.manifest):
        say(f"next: client doctor --site {site.site}")
    else:
        say("next: name them in the site file, with the keys manifest and images")


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
        lines.append(f"list, {'row ' if len(rows) == 1 else 'rows '}{', '.join(map(str, rows[:MAX_ROWS]))}{more}: {reason}")
    if imported.pictures or imported.diagnoses:
        lines.append(f"all of that: {staging.folder / 'left-out.csv'}")
    sheets = "contact-sheet-001.png" if imported.sheets == 1 else f"contact-sheet-001.png to {imported.sheets:03}"
    return [*lines, f"look at every picture: {staging.folder / sheets}"]


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
