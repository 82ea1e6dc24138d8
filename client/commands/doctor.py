"""The command `client doctor`."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from client.commands.enrolment import SiteFile, SiteName
from csasn.errors import CsasnError
from csasn.platform.terminal import bar, option, progress_bars, say, say_json

if TYPE_CHECKING:
    from client.doctor.context import DoctorContext
MORE = """\
Looks at all that a run needs, a line each, with what to do about it: site file, manifest, images, keys, disk, one
training step of the study's model, this site's policy; and, once the kit is installed, the way to the coordinator, its
certificate, clock, study, version, approvals, the bandwidth, and from it how long a round takes.

Of the manifest it says how the sheet was read, the rows that need a look, and pictures that are nearly those of another
patient.

Fills the image cache, and writes fingerprint.json and fingerprint.png into the state folder: what this site's data looks
like, and images with suspected burned-in text or calipers. Both are for this site alone. Nothing else is changed, and
nothing about patients is sent; noise is sent to measure the link.

The exit code is that of the first check that failed; 0 where none did, also with warnings.

example:
  client doctor --site centerA --study study.yaml
  client doctor --site centerA --only network
  client doctor --site centerA --bundle help.zip
"""


def doctor(
    site: SiteName,
    study: Annotated[Path | None, option("--study FILE", "study.yaml (default: the one of the kit)")] = None,
    only: Annotated[
        Literal["data", "machine", "network"] | None,
        option(
            "--only GROUP",
            "check data, machine or network alone, and what these checks need (default: all, and how long a round takes)",
        ),
    ] = None,
    json: Annotated[bool, option("--json", "for scripts: a list of {check, status, message, fix}")] = False,
    bundle: Annotated[
        Path | None,
        option(
            "--bundle FILE",
            "also write a zip archive to send for help: findings, versions, site file and last lines of logs, without names",
        ),
    ] = None,
    config: SiteFile = None,
) -> None:
    """Check all that a run needs, and say what to mend."""
    from client.doctor.context import DoctorContext
    from client.doctor.doctor import CHECKS, Result, checks_of, examine, first_failure, waiting_lines

    with progress_bars(transient=True) as bars:

        def tell(result: Result) -> None:
            bars.stop()
            if not json and not result.waits_for:
                say(*result.lines())

        context = DoctorContext(site, config, study, bar(bars, "reading images"))
        results = examine(context, tell, checks_of(only) if only else CHECKS)
    findings = [result.facts() for result in results]
    if json:
        say_json(findings)
    else:
        say(*waiting_lines(results))
    if bundle:
        _write_bundle(bundle, context, findings)
    if error := first_failure(results):
        raise error


def _write_bundle(path: Path, context: "DoctorContext", findings: list[dict[str, str]]) -> None:
    from client.doctor.bundle import gather, write_bundle

    site, manifest = None, None
    with suppress(CsasnError):  # what cannot be read was said above
        site = context.site
        manifest = context.manifest
    write_bundle(path, gather(findings, site, manifest), lambda line: sys.stderr.write(f"{line}\n"))
