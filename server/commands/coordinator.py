"""The coordinator's commands during a run: start, run, status, stop, report, receipts."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from csasn.errors import AttentionError, ConfigurationError, RunError
from csasn.platform.terminal import Health, argument, console, option, say, say_json
from server.commands.enrolment import FOLDER, Folder
from server.commands.page import Page, PageTls, page_shown
from server.commands.simulate import show_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csasn.report.live_page import Source
    from server.office.study_folder import StudyFolder

WATCH_S = 3.0


def start(
    run: Annotated[bool, option("--run", "also keep `server run` going, until the study is finished")] = False,
    listen: Annotated[str, option("--listen ADDRESS", "address to listen at (default: all)")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, option("--port PORT", "port to listen at, where a router maps another one to it")] = 0,
    superlink_port: Annotated[
        int,
        option(
            "--superlink-port PORT",
            "port of SuperLink on 127.0.0.1, where nginx passes requests to it (default: any that is free)",
        ),
    ] = 0,
    on_trouble: Annotated[
        str,
        option(
            "--on-trouble COMMAND",
            "a program, called with one line of text when something wants a person, and again when it is over",
        ),
    ] = "",
    grace: Annotated[
        float,
        option(
            "--grace MINUTES", "how long a trouble lasts before that program hears of it, or of its end (default: 3)", (0, None)
        ),
    ] = 3.0,
    health: Health = "",
    page: Page = "",
    page_tls: PageTls = None,
    folder: Folder = FOLDER,
) -> None:
    """Keep SuperLink and the front running.

    Listens for the sites, at the port of the address that they were given, until SIGTERM or Ctrl-C; what ends is started
    anew. Under systemd it says when it is ready, and keeps its watchdog.

    example:
      server start --run
      server start --run --page
    """
    from csasn.platform.supervision import ServiceManager, told_health
    from server.office import service

    def source() -> "Source":
        from server.page.sources import study_source

        return study_source(folder)

    settings = service.StartSettings(listen, port, run, on_trouble, grace, superlink_port)
    shown = page_shown(page, page_tls, source, _say_when, folder / "page.token")
    with told_health(health) as tell_ready:
        service.start(folder, settings, ServiceManager(os.environ.get("NOTIFY_SOCKET", "")), _say_when, tell_ready, shown)


def run(folder: Folder = FOLDER) -> None:
    """Run the study, or go on with it.

    Waits until every site has approved; then trains, round by round. It may be killed and started again at any instant.

    example:
      server run
    """
    from csasn.platform.supervision import end_on_sigterm
    from server.office import running

    end_on_sigterm()
    _say_when(f"everything is in {running.run(folder, _say_when)}")


def status(
    json: Annotated[bool, option("--json", "for scripts")] = False,
    check: Annotated[bool, option("--check", "print troubles alone; exit code 13 if there are any")] = False,
    watch: Annotated[bool, option("--watch", "show it anew every few seconds, until Ctrl-C")] = False,
    folder: Folder = FOLDER,
) -> None:
    """Who is enrolled, approved, online; the rounds so far; what needs a person.

    Of the coordinator's folder: of all its studies; with --json of its first one, and of a further one by its own folder.
    Exit code 13 with --check where something needs a person, for cron or monitoring.

    example:
      server status --check || mail -s study it@example.org
      server status --watch
    """
    opened = _open(folder)
    studies = [opened, *[_open(each.folder) for each in opened.enrolments.all_studies()[1:]]] if opened.is_first else [opened]
    if check:
        from server.office.troubles import find_troubles

        troubles = {trouble.line: None for study_folder in studies for trouble in find_troubles(study_folder)}
        if troubles:
            raise AttentionError("; ".join(troubles), "see server status, and section 5 of the guide")
        return
    from server.office.status import read_status, status_view

    if json:
        say_json(read_status(opened).model_dump(mode="json"))
    elif watch:
        _watch(studies)
    else:
        console().print(*(status_view(read_status(study_folder)) for study_folder in studies), sep="\n", highlight=False)


def _watch(studies: "Sequence[StudyFolder]") -> None:
    """Shows the status anew until Ctrl-C, which is the way to end it, and no error."""
    from rich.console import Group
    from rich.live import Live

    from server.office.status import read_status, status_view

    with suppress(KeyboardInterrupt), Live(console=console(), auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            live.update(Group(*(status_view(read_status(study_folder)) for study_folder in studies)), refresh=True)
            time.sleep(WATCH_S)


def stop(folder: Folder = FOLDER) -> None:
    """End `server start` and all it runs.

    A run that was under way goes on at the next start.

    example:
      server stop
    """
    from server.office import service

    service.stop(folder)


def report(
    json: Annotated[bool, option("--json", "print report.json or survey.json itself")] = False, folder: Folder = FOLDER
) -> None:
    """The report of the run, or of the survey.

    Tables from the run's report.json, of a survey its survey.json, and where its page for a browser is.

    example:
      server report
    """
    from json import loads

    from csasn.report.types import Report, SurveyReport
    from server.run.run_directory import report_name

    study_folder = _open(folder)
    path = study_folder.run_path / report_name(study_folder.enrolments.study)
    if not path.exists():
        raise RunError(f"{path} does not exist", "the run has not come to its end; see server status")
    found = loads(path.read_text())
    if json:
        say_json(found)
    else:
        kind = SurveyReport if "tables" in found else Report
        show_report(kind.of_json(found), path.parent, console())


def receipts(site: Annotated[str, argument("SITE", "the site to whom the lines will be given")], folder: Folder = FOLDER) -> None:
    """What the coordinator received of one site, for that site's own audit.

    Prints the site's lines of received.jsonl, and no other site's. The site compares them with its ledger by
    client audit --received FILE.

    example:
      server receipts centerA > centerA.received.jsonl
    """
    from csasn.federated.receipt import RECEIVED_FILE, read_receipts

    study_folder = _open(folder)
    if site not in (sites := study_folder.enrolments.roster):
        raise ConfigurationError(f"site is {site!r}, expected one of {', '.join(sites)}", "see server status")
    found, unreadable = read_receipts(study_folder.run_path / RECEIVED_FILE)
    for receipt in found:
        if receipt.site == site:
            sys.stdout.write(receipt.model_dump_json() + "\n")
    if unreadable:
        sys.stderr.write(f"warning: {unreadable} lines of {RECEIVED_FILE} cannot be read and are left out\n")


def _open(folder: Path) -> "StudyFolder":
    from server.office.enrolment import Enrolments
    from server.office.study_folder import StudyFolder

    return StudyFolder(Enrolments.open(folder))


def _say_when(line: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} {line}")
