"""`server simulate` and `server survey`: a study over the sites' folders on this machine, and what is counted before it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from csasn.errors import ConfigurationError
from csasn.platform.terminal import argument, console, option, say_json
from server.commands.enrolment import Continues, begin_study
from server.commands.page import Page, PageTls, page_shown

if TYPE_CHECKING:
    from rich.console import Console

    from csasn.report.live_page import Source
    from csasn.report.types import Report, SurveyReport
    from server.simulation.simulate import Simulation


def simulate(
    study: Annotated[Path, argument("STUDY", "study.yaml")],
    sites: Annotated[Path | None, option("--sites DIR", "folder of <site>.yaml files (default: sites/ beside STUDY)")] = None,
    out: Annotated[Path | None, option("--out RUN", "run directory (default: runs/<name of the study>)")] = None,
    changes: Annotated[list[str] | None, option("--set KEY=VALUE", "change a value of the study, for this run")] = None,
    baselines: Annotated[bool, option("--baselines", "also train each site alone, and all cases pooled")] = False,
    engine: Annotated[
        Literal["local", "flower"],
        option(
            "--engine",
            "local: two worker processes (default); flower: Flower's own simulation runtime, a process a core; needs Ray, "
            "pip install 'csasn-federated[flower]'; both give the same model to the bit",
        ),
    ] = "local",
    continues: Continues = None,
    resume: Annotated[
        bool, option("--resume", "continue the unfinished run in RUN; with --baselines also add those that a finished one lacks")
    ] = False,
    anew: Annotated[bool, option("--anew", "set aside, under a name with the time, what RUN holds; then begin")] = False,
    page: Page = "",
    page_tls: PageTls = None,
    json: Annotated[bool, option("--json", "print the report as JSON instead of tables")] = False,
) -> None:
    """Run a whole federation on this machine, from files on disk.

    Trains a study over the sites' folders on this machine, through the same apps that hospitals run,
    in two worker processes. Ctrl-C leaves a run that --resume continues to the same bits.

    example:
      csasn phantom --out demo
      server simulate demo/study.yaml --baselines --page
      server simulate demo/study.yaml --continue runs/demo --out runs/more --set federation.rounds=5
    """
    from server.simulation.simulate import Simulation

    sites = sites or study.parent / "sites"
    simulation = Simulation(study, sites, out, tuple(changes or ()), baselines, resume, anew, continues, engine)

    def source() -> "Source":
        from csasn.study import read_study
        from server.page.sources import run_source

        name = read_study(study, simulation.changes).name
        return run_source(name, out or Path("runs") / name)

    with page_shown(page, page_tls, source, lambda line: console(stderr=json).out(line, highlight=False)):
        _show(simulation, json)


def survey(
    study: Annotated[Path, argument("STUDY", "study.yaml, of the study that may come after it")],
    sites: Annotated[Path | None, option("--sites DIR", "count now, over this folder of <site>.yaml files")] = None,
    address: Annotated[str | None, option("--address HOST:PORT", "where the sites will reach this server")] = None,
    out: Annotated[Path | None, option("--out RUN", "with --sites: run directory (default: runs/<name>-survey)")] = None,
    anew: Annotated[bool, option("--anew", "with --sites: set aside, under a name with the time, what RUN holds")] = False,
    json: Annotated[bool, option("--json", "with --sites: print survey.json")] = False,
    folder: Annotated[Path, option("--folder DIR", "with --address: the folder to make (default: survey/)")] = Path("survey"),
    name: Annotated[list[str] | None, option("--name NAME_OR_IP", "with --address: see server init")] = None,
    behind_balancer: Annotated[Path | None, option("--behind-balancer CA_FILE", "with --address: see server init")] = None,
    passphrase_file: Annotated[Path | None, option("--passphrase-file FILE", "with --address: see server init")] = None,
) -> None:
    """Count cases, patients, classes, labels, scanners and sizes over all sites, before training.

    Counts over all sites as one masked sum; small counts hide, at the site and here. Nothing is trained.
    With --sites at once, over folders on this machine. With --address it makes the folder of a coordinator for the survey:
    from there it goes on as a study does (server enroll, client approve, server start --run, server report), each with
    --folder. Sites keep their keys for the study, which is enrolled and approved by itself.

    example:
      server survey demo/study.yaml --sites demo/sites
      server survey study.yaml --address federation.example.org:9443 --folder survey
    """
    if address is not None:
        begin_study(study, address, name or [], folder, passphrase_file, behind_balancer, survey=True)
        return
    if name or passphrase_file or behind_balancer:
        given = "--name, --passphrase-file and --behind-balancer"
        raise ConfigurationError(f"{given} go with --address, not with --sites", "leave them out")
    from csasn.study import read_study
    from server.simulation.simulate import Simulation

    assert sites is not None
    out = out or Path("runs") / f"{read_study(study).name}-survey"
    _show(Simulation(study, sites, out, ("survey=true",), anew=anew), json)


def show_report(report: "Report | SurveyReport", folder: Path, screen: "Console") -> None:
    """The tables of report.json or survey.json, where all else is, and the page to open."""
    from csasn.report.survey import survey_tables
    from csasn.report.tables import report_tables
    from csasn.report.types import SurveyReport

    is_survey = isinstance(report, SurveyReport)
    screen.print(survey_tables(report) if isinstance(report, SurveyReport) else report_tables(report))
    names = "survey.json" if is_survey else "report.json, curves.png, model.safetensors"
    screen.print(f"status {report.status}; everything is in [bold]{folder}[/bold]: {names}", highlight=False)
    if (page := folder / ("survey.html" if is_survey else "report.html")).exists():
        screen.print(f"open {page}", highlight=False, markup=False, soft_wrap=True)


def _show(simulation: "Simulation", as_json: bool) -> None:
    """Runs it, with its progress, and shows what came of it."""
    from server.simulation.progress import Progress
    from server.simulation.simulate import simulate

    screen = console(stderr=as_json)
    with Progress(screen) as progress:
        report, path = simulate(simulation, progress)
    if as_json:
        say_json(report.as_json())
    else:
        show_report(report, path, screen)
