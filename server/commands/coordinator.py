"""The coordinator's commands during a run: start, run, status, stop, report, receipts."""

import argparse
import json
import os
import sys
import time

from csasn.errors import ConfigurationError, QuorumError, RunError
from csasn.platform.command import Commands, add_command, add_health
from server.commands.enrolment import add_folder


def add_commands(commands: Commands) -> None:
    """Adds them to the command `server`."""
    for add in (_add_start, _add_run, _add_status, _add_stop, _add_report, _add_receipts):
        add_folder(add(commands))


def _add_start(commands: Commands) -> argparse.ArgumentParser:
    start = add_command(
        commands,
        "start",
        _start,
        "keep SuperLink and the front running",
        "Listens for the sites, at the port of the address that they were given, until SIGTERM or Ctrl-C; what ends is started\n"
        "anew. Under systemd it says when it is ready, and keeps its watchdog.",
        "server start --run",
    )
    start.add_argument("--run", action="store_true", help="also keep `server run` going, until the study is finished")
    start.add_argument("--listen", default="0.0.0.0", metavar="ADDRESS", help="address to listen at (default: all)")  # noqa: S104
    start.add_argument(
        "--port", type=int, default=0, metavar="PORT", help="port to listen at, where a router maps another one to it"
    )
    start.add_argument(
        "--superlink-port",
        type=int,
        default=0,
        metavar="PORT",
        help="port of SuperLink on 127.0.0.1, where nginx passes requests to it (default: any that is free)",
    )
    start.add_argument(
        "--on-trouble",
        default="",
        metavar="COMMAND",
        help="a program, called with one line when the run waits a minute for a site, it failed, or a certificate ends in 14 days",
    )
    add_health(start)
    return start


def _add_run(commands: Commands) -> argparse.ArgumentParser:
    return add_command(
        commands,
        "run",
        _run,
        "run the study, or go on with it",
        "Waits until every site has approved; then trains, round by round. It may be killed and started again at any instant.",
        "server run",
    )


def _add_status(commands: Commands) -> argparse.ArgumentParser:
    status = add_command(
        commands,
        "status",
        _status,
        "who is enrolled, approved, online; the rounds so far; what needs a person",
        "Exit code 8 with --check where something needs a person, for cron or monitoring.",
        "server status --check || mail -s study it@example.org",
    )
    how = status.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for scripts")
    how.add_argument("--check", action="store_true", help="print troubles alone; exit code 8 if there are any")
    return status


def _add_stop(commands: Commands) -> argparse.ArgumentParser:
    return add_command(
        commands,
        "stop",
        _stop,
        "end `server start` and all it runs",
        "A run that was under way goes on at the next start.",
        "server stop",
    )


def _add_report(commands: Commands) -> argparse.ArgumentParser:
    report = add_command(
        commands,
        "report",
        _report,
        "the report of the run, or of the survey",
        "Tables from the run's report.json, of a survey its survey.json, and where its page for a browser is.",
        "server report",
    )
    report.add_argument("--json", action="store_true", help="print report.json or survey.json itself")
    return report


def _add_receipts(commands: Commands) -> argparse.ArgumentParser:
    receipts = add_command(
        commands,
        "receipts",
        _receipts,
        "what the coordinator received of one site, for that site's own audit",
        "Prints the site's lines of received.jsonl, and no other site's. The site compares them with its ledger by\n"
        "client audit --received FILE.",
        "server receipts centerA > centerA.received.jsonl",
    )
    receipts.add_argument("site", help="the site to whom the lines will be given")
    return receipts


def _start(arguments: argparse.Namespace) -> None:
    from csasn.platform.supervision import ServiceManager, told_health
    from server.office.service import StartSettings, start

    settings = StartSettings(
        arguments.listen, arguments.port, arguments.run, arguments.on_trouble, superlink_port=arguments.superlink_port
    )
    with told_health(arguments.health) as tell_ready:
        start(arguments.folder, settings, ServiceManager(os.environ.get("NOTIFY_SOCKET", "")), _say, tell_ready)


def _run(arguments: argparse.Namespace) -> None:
    from csasn.platform.supervision import end_on_sigterm
    from server.office.service import run

    end_on_sigterm()
    _say(f"everything is in {run(arguments.folder, _say)}")


def _status(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from server.office.desk import Desk
    from server.office.enrolment import Enrolments
    from server.office.status import describe, find_troubles, status_view

    desk = Desk(Enrolments.open(arguments.folder))
    if arguments.check:
        if troubles := find_troubles(desk):
            raise QuorumError("; ".join(troubles), "see server status")
        return
    status = describe(desk)
    if arguments.json:
        sys.stdout.write(json.dumps(status, indent=1) + "\n")
    else:
        Console().print(status_view(status), highlight=False)


def _stop(arguments: argparse.Namespace) -> None:
    from server.office.service import stop

    stop(arguments.folder)


def _report(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from server.commands.terminal import read_report, show_report
    from server.office.desk import Desk
    from server.office.enrolment import Enrolments
    from server.run.run_directory import report_name

    desk = Desk(Enrolments.open(arguments.folder))
    path = desk.run_path / report_name(desk.enrolments.study)
    if not path.exists():
        raise RunError(f"{path} does not exist", "the run has not come to its end; see server status")
    report = json.loads(path.read_text())
    if arguments.json:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        show_report(read_report(report), path.parent, Console())


def _receipts(arguments: argparse.Namespace) -> None:
    from csasn.federated.receipt import RECEIVED_FILE, read_receipts
    from server.office.desk import Desk
    from server.office.enrolment import Enrolments

    desk = Desk(Enrolments.open(arguments.folder))
    if arguments.site not in desk.enrolments.study.federation.sites:
        sites = ", ".join(desk.enrolments.study.federation.sites)
        raise ConfigurationError(f"site is {arguments.site!r}, expected one of {sites}", "see server status")
    receipts, unreadable = read_receipts(desk.run_path / RECEIVED_FILE)
    for receipt in receipts:
        if receipt.site == arguments.site:
            sys.stdout.write(receipt.model_dump_json() + "\n")
    if unreadable:
        sys.stderr.write(f"warning: {unreadable} lines of {RECEIVED_FILE} cannot be read and are left out\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()
