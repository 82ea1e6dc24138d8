"""The command `client doctor`."""

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.enrolment import add_site_arguments
from csasn.errors import CsasnError
from csasn.platform.command import Commands, add_command

if TYPE_CHECKING:
    from rich.progress import Progress

    from client.doctor.context import DoctorContext

DESCRIPTION = """\
Looks at all that a run needs, a line each, with what to do about it: site file, manifest, images, keys, disk, one training
step of the study's model, this site's policy; and, once the kit is installed, the way to the coordinator, its certificate,
clock, study, version, approvals, the bandwidth, and from it how long a round takes.

Of the manifest it says how the sheet was read, the rows that need a look, and pictures that are nearly those of another patient.

Fills the image cache, and writes fingerprint.json and fingerprint.png into the state folder: what this site's data looks
like, and images with suspected burned-in text or calipers. Both are for this site alone. Nothing else is changed, and
nothing about patients is sent; noise is sent to measure the link.

The exit code is that of the first check that failed; 0 where none did, also with warnings."""


def add_commands(commands: Commands) -> None:
    """Adds it to the command `client`."""
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check all that a run needs, and say what to mend",
        DESCRIPTION,
        "client doctor --site centerA --study study.yaml\n  client doctor --site centerA --bundle help.zip",
    )
    add_site_arguments(doctor)
    doctor.add_argument("--study", type=Path, metavar="FILE", help="study.yaml (default: the one of the kit)")
    doctor.add_argument("--json", action="store_true", help="for scripts: a list of {check, status, message, fix}")
    doctor.add_argument(
        "--bundle",
        type=Path,
        metavar="FILE",
        help="also write a zip archive to send for help: findings, versions, site file and last lines of logs, without names",
    )


def _doctor(arguments: argparse.Namespace) -> None:
    from client.doctor.context import DoctorContext
    from client.doctor.doctor import Result, examine, first_failure

    bar = _ImageBar()

    def tell(result: Result) -> None:
        bar.stop()
        if not arguments.json:
            sys.stdout.write("\n".join(result.lines()) + "\n")
            sys.stdout.flush()

    context = DoctorContext(arguments.site, arguments.config, arguments.study, bar.advance)
    results = examine(context, tell)
    findings = [result.facts() for result in results]
    if arguments.json:
        sys.stdout.write(json.dumps(findings, indent=1) + "\n")
    if arguments.bundle:
        _write_bundle(arguments.bundle, context, findings)
    if error := first_failure(results):
        raise error


class _ImageBar:
    """How far the reading of images is, on a terminal, and only while it lasts."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._is_terminal = sys.stderr.isatty()

    def advance(self, done: int, total: int) -> None:
        """Shows it."""
        if not self._is_terminal:
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.add_task("reading images")
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done, total=total)

    def stop(self) -> None:
        """Takes it away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _write_bundle(path: Path, context: "DoctorContext", findings: list[dict[str, str]]) -> None:
    from client.doctor.bundle import gather, write_bundle

    site, manifest = None, None
    with suppress(CsasnError):  # what cannot be read was said above
        site = context.site
        manifest = context.manifest
    write_bundle(path, gather(findings, site, manifest), lambda line: sys.stderr.write(f"{line}\n"))
