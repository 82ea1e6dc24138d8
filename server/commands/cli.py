"""The command `server`: what a coordinator or a researcher runs."""

import argparse
import json
import sys
from pathlib import Path

from csasn.platform.command import EXIT_CODES, run_command
from server.commands.coordinator import add_commands as add_coordinator_commands
from server.commands.enrolment import add_commands as add_enrolment_commands
from server.commands.survey import add_command as add_survey_command


def main() -> None:
    """Entry point of the command."""
    arguments = _parser().parse_args()
    sys.exit(run_command(lambda: arguments.command(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="server",
        description="Coordinate a CSASN federation. No patient data reaches the coordinator.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    simulate = commands.add_parser(
        "simulate",
        help="run a whole federation on this machine, from files on disk",
        description="Trains a study over the sites' folders on this machine, through the same apps that hospitals run,\n"
        "in two worker processes. Ctrl-C leaves a run that --resume continues to the same bits.",
        epilog="example:\n  csasn phantom --out demo\n  server simulate demo/study.yaml --baselines\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate.add_argument("study", type=Path, metavar="STUDY", help="study.yaml")
    simulate.add_argument("--sites", type=Path, metavar="DIR", help="folder of <site>.yaml files (default: sites/ beside STUDY)")
    simulate.add_argument("--out", type=Path, metavar="RUN", help="run directory (default: runs/<name of the study>)")
    simulate.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the study, for this run"
    )
    simulate.add_argument("--baselines", action="store_true", help="also train each site alone, and all cases pooled")
    simulate.add_argument(
        "--engine",
        choices=["local", "flower"],
        default="local",
        help="local: two worker processes (default); flower: Flower's own simulation runtime, a process a core; needs Ray, "
        "pip install 'csasn-federated[flower]'; both give the same model to the bit",
    )
    before = simulate.add_mutually_exclusive_group()
    before.add_argument("--resume", action="store_true", help="continue the unfinished run in RUN")
    before.add_argument("--anew", action="store_true", help="set aside, under a name with the time, what RUN holds; then begin")
    simulate.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    simulate.set_defaults(command=_simulate)
    add_survey_command(commands)
    add_enrolment_commands(commands)
    add_coordinator_commands(commands)
    return parser


def _simulate(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from server.commands.terminal import show_report
    from server.simulation.progress import Progress
    from server.simulation.simulate import Simulation, simulate

    simulation = Simulation(
        study_file=arguments.study,
        sites_folder=arguments.sites or arguments.study.parent / "sites",
        out=arguments.out,
        changes=tuple(arguments.set),
        baselines=arguments.baselines,
        resume=arguments.resume,
        anew=arguments.anew,
        engine=arguments.engine,
    )
    console = Console(stderr=arguments.json)
    with Progress(console) as progress:
        report, path = simulate(simulation, progress)
    if arguments.json:
        sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n")
    else:
        show_report(report, path, console)
