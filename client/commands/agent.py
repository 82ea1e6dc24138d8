"""The site's commands during a run: `client --site NAME` itself, status, pause, audit."""

import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from client.commands.enrolment import SiteFile, SiteName, open_site
from csasn.errors import AttentionError, ConfigurationError
from csasn.platform.plain_text import plain
from csasn.platform.terminal import Health, option, say, say_json

if TYPE_CHECKING:
    from client.worker.replay import Replayed
    from csasn.site import Site


def take_part(
    site: Annotated[
        str | None, option("--site NAME", "without a command: take part in the study until it ends, as this site")
    ] = None,
    config: SiteFile = None,
    health: Health = "",
) -> None:
    """Take part in the study until it ends, and in further ones that were approved."""
    if site is None:
        raise ConfigurationError("which site?", "client --site NAME, or client --help for all commands")
    from client.service.agent import Agent
    from client.service.status import noting_the_end
    from csasn.platform.supervision import ServiceManager, told_health
    from csasn.site import find_site_file

    if "/" in site:
        raise ConfigurationError(f"--site {site} is one study of a site", "client --site SITE takes part in all that are approved")
    path = find_site_file(site, config)
    manager = ServiceManager(os.environ.get("NOTIFY_SOCKET", ""))
    opened = open_site(site, config)
    with told_health(health) as tell_ready, noting_the_end(Path(opened.state)):
        Agent(opened, path, manager, StatusLine(), tell_ready).run()


class StatusLine:
    """Prints a line where it is new: over the last one on a terminal, below it with the time in a log."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, line: str) -> None:
        """Shows `line`, which may quote the coordinator."""
        line = plain(line)
        if line == self._last:
            return
        shown = ""
        if sys.stdout.isatty():
            shown = f"\r\x1b[2K{line}"
        elif line.partition(":")[0] != self._last.partition(":")[0] or not line.endswith("%"):  # progress is for terminals
            shown = f"{time.strftime('%H:%M:%S')} {line}\n"
        self._last = line
        try:
            sys.stdout.write(shown)
            sys.stdout.flush()
        except OSError:  # a log that lies on the full disk: whoever reads standard error still hears it
            with suppress(OSError):
                sys.stderr.write(shown)


def status(
    site: SiteName,
    json: Annotated[bool, option("--json", "for scripts")] = False,
    check: Annotated[bool, option("--check", "print nothing, or why this site takes no part; exit code 13 then")] = False,
    config: SiteFile = None,
) -> None:
    """What this site is doing.

    One line, from what the site's processes noted last; it asks nobody.
    Exit code 13 with --check where the site takes no part in a study that goes on, for cron or monitoring; a service that
    stands outside its training hours is as it should be.

    example:
      client status --site centerA --check || mail -s study it@example.org
    """
    from client.service.status import describe_site

    opened = open_site(site, config)
    studies = [describe_site(each) for each in opened.all_studies()]
    if check:
        for now in studies:
            if not (now.takes_part or now.outside_training_hours or now.finished):
                raise AttentionError(f"site {now.site}: {now.line}", f"client doctor --site {now.site}")
        return
    if json:
        say_json(studies[0].facts())
    else:
        for now in studies:
            say(f"{now.site}: {now.line}" if len(studies) > 1 else now.line, *now.left_out)


def pause(site: SiteName, resume: Annotated[bool, option("--resume", "go on")] = False, config: SiteFile = None) -> None:
    """Take no more work, of no study, or go on.

    The processes end, also in the middle of a round, which the coordinator then waits for until its deadline.

    example:
      client pause --site centerA
      client pause --site centerA --resume
    """
    from client.service.status import PAUSE
    from csasn.platform.storage import private_folder, write_atomically

    path = private_folder(open_site(site, config).service_folder) / PAUSE
    if resume:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, b"")


def audit(
    site: SiteName,
    ledger: Annotated[Path | None, option("--ledger FILE", "ledger.jsonl (default: run/ledger.jsonl in the state folder)")] = None,
    received: Annotated[
        Path | None, option("--received FILE", "the lines of this site out of the coordinator's received.jsonl")
    ] = None,
    replay: Annotated[bool, option("--replay", "train the last round once more, and compare (minutes)")] = False,
    json: Annotated[bool, option("--json", "print the report as JSON")] = False,
    config: SiteFile = None,
) -> None:
    """Verify this site's ledger, and say what has left.

    Verifies the chain of ledger.jsonl and says in plain words what has left this site. With the coordinator's
    received.jsonl it also says whether that is what arrived; with --replay it trains the last round once more and says
    whether that gives the answer which left, masked. Changes nothing, needs no network.

    example:
      client audit --site centerA --received centerA.received.jsonl
    """
    from client.trust.audit import audit, audit_site

    report = audit(ledger, received, site.partition("/")[0]) if ledger else audit_site(open_site(site, config), received)
    replayed = _replay(open_site(site, config)) if replay else None
    if json:
        say_json(asdict(report) | ({} if replayed is None else {"replay": asdict(replayed)}))
    else:
        say(*report.lines(), *([replayed.line] if replayed else []))


def _replay(site: "Site") -> "Replayed":
    from client.trust.approval import read_approved
    from client.worker.replay import find_replay, replay

    study, membership, _ = read_approved(site)
    return replay(site, study, membership, find_replay(site))
