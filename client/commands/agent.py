"""The site's commands during a run: `client --site NAME` itself, status, pause."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.enrolment import add_site_arguments
from csasn.errors import NetworkError
from csasn.platform.command import Commands, add_command
from csasn.platform.plain_text import plain

if TYPE_CHECKING:
    from client.worker.replay import Replayed
    from csasn.site import Site


def add_commands(commands: Commands) -> None:
    """Adds them to the command `client`."""
    status = add_command(
        commands,
        "status",
        _status,
        "what this site is doing",
        "One line, from what the site's processes noted last; it asks nobody.\n"
        "Exit code 12 with --check where the site takes no part in a study that goes on, for cron or monitoring; a service that\n"
        "stands outside its training hours is as it should be.",
        "client status --site centerA --check || mail -s study it@example.org",
    )
    how = status.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for scripts")
    how.add_argument("--check", action="store_true", help="print nothing, or why this site takes no part; exit code 12 then")
    add_site_arguments(status)
    pause = add_command(
        commands,
        "pause",
        _pause,
        "take no more work, or go on",
        "The processes end, also in the middle of a round, which the coordinator then waits for until its deadline.",
        "client pause --site centerA\n  client pause --site centerA --resume",
    )
    pause.add_argument("--resume", action="store_true", help="go on")
    add_site_arguments(pause)
    _add_audit(commands)


def _add_audit(commands: Commands) -> None:
    audit = add_command(
        commands,
        "audit",
        _audit,
        "verify this site's ledger, and say what has left",
        "Verifies the chain of ledger.jsonl and says in plain words what has left this site. With the coordinator's\n"
        "received.jsonl it also says whether that is what arrived; with --replay it trains the last round once more and says\n"
        "whether that gives the answer which left, masked. Changes nothing, needs no network.",
        "client audit --site centerA --received centerA.received.jsonl",
    )
    audit.add_argument("--ledger", type=Path, metavar="FILE", help="ledger.jsonl (default: run/ledger.jsonl in the state folder)")
    audit.add_argument(
        "--received", type=Path, metavar="FILE", help="the lines of this site out of the coordinator's received.jsonl"
    )
    audit.add_argument("--replay", action="store_true", help="train the last round once more, and compare (minutes)")
    audit.add_argument("--json", action="store_true", help="print the report as JSON")
    add_site_arguments(audit)


def run_site(arguments: argparse.Namespace) -> None:
    """`client --site NAME`: until the study ends."""
    from client.service.agent import Agent
    from csasn.platform.supervision import ServiceManager, told_health
    from csasn.site import find_site_file

    path = find_site_file(arguments.site, arguments.config)
    manager = ServiceManager(os.environ.get("NOTIFY_SOCKET", ""))
    with told_health(arguments.health) as tell_ready:
        Agent(_site(arguments), path, manager, StatusLine(), tell_ready).run()


class StatusLine:
    """Prints a line where it is new: over the last one on a terminal, below it with the time in a log."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, line: str) -> None:
        """Shows `line`, which may quote the coordinator."""
        line = plain(line)
        if line == self._last:
            return
        if sys.stdout.isatty():
            sys.stdout.write(f"\r\x1b[2K{line}")
        elif line.partition(":")[0] != self._last.partition(":")[0] or not line.endswith("%"):  # progress is for terminals
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        self._last = line
        sys.stdout.flush()


def _status(arguments: argparse.Namespace) -> None:
    from client.service.status import describe_site

    site = _site(arguments)
    status = describe_site(site)
    if arguments.check:
        if not (status.takes_part or status.outside_training_hours or status.finished):
            raise NetworkError(f"site {arguments.site}: {status.line}", f"client doctor --site {arguments.site}")
        return
    lines = [status.line, *status.left_out]
    sys.stdout.write((json.dumps(status.facts(), indent=1) if arguments.json else "\n".join(map(plain, lines))) + "\n")


def _audit(arguments: argparse.Namespace) -> None:
    from dataclasses import asdict

    from client.trust.audit import audit, audit_site

    if arguments.ledger:
        report = audit(arguments.ledger, arguments.received, arguments.site)
    else:
        report = audit_site(_site(arguments), arguments.received)
    replayed = _replay(arguments) if arguments.replay else None
    if arguments.json:
        facts = asdict(report) | ({} if replayed is None else {"replay": asdict(replayed)})
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    sys.stdout.write("\n".join([*map(plain, report.lines()), *([replayed.line] if replayed else [])]) + "\n")


def _replay(arguments: argparse.Namespace) -> "Replayed":
    from client.trust.approval import read_approved
    from client.worker.replay import find_replay, replay

    site = _site(arguments)
    study, membership, _ = read_approved(site)
    return replay(site, study, membership, find_replay(site))


def _pause(arguments: argparse.Namespace) -> None:
    from client.service.status import PAUSE
    from csasn.platform.storage import private_folder, write_atomically

    path = private_folder(Path(_site(arguments).state)) / PAUSE
    if arguments.resume:
        path.unlink(missing_ok=True)
    else:
        write_atomically(path, b"")


def _site(arguments: argparse.Namespace) -> "Site":
    from csasn.site import find_site

    return find_site(arguments.site, arguments.config)
