"""`server survey`: how many cases of what there are, before anything is trained."""

import argparse
import json
import sys
from pathlib import Path

from csasn.errors import ConfigurationError
from csasn.platform.command import Commands
from csasn.platform.command import add_command as add_to

FOLDER = Path("survey")
ON = "survey=true"


def add_command(commands: Commands) -> None:
    """Adds it to the command `server`."""
    survey = add_to(
        commands,
        "survey",
        _survey,
        "count cases, patients, classes, labels, scanners and sizes over all sites, before training",
        "Counts over all sites as one masked sum; small counts hide, at the site and here. Nothing is trained.\n"
        "With --sites at once, over folders on this machine. With --address it makes the folder of a coordinator for the survey:\n"
        "from there it goes on as a study does (server enroll, client approve, server start --run, server report), each with\n"
        "--folder. Sites keep their keys for the study, which is enrolled and approved by itself.",
        "server survey demo/study.yaml --sites demo/sites\n"
        "  server survey study.yaml --address federation.example.org:9443 --folder survey",
    )
    survey.add_argument("study", type=Path, metavar="STUDY", help="study.yaml, of the study that may come after it")
    how = survey.add_mutually_exclusive_group(required=True)
    how.add_argument("--sites", type=Path, metavar="DIR", help="count now, over this folder of <site>.yaml files")
    how.add_argument("--address", metavar="HOST:PORT", help="where the sites will reach this server")
    survey.add_argument("--out", type=Path, metavar="RUN", help="with --sites: run directory (default: runs/<name>-survey)")
    survey.add_argument("--anew", action="store_true", help="with --sites: set aside, under a name with the time, what RUN holds")
    survey.add_argument("--json", action="store_true", help="with --sites: print survey.json")
    survey.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR", help=f"with --address: the folder to make (default: {FOLDER}/)"
    )
    survey.add_argument("--name", action="append", default=[], metavar="NAME_OR_IP", help="with --address: see server init")
    survey.add_argument("--passphrase-file", type=Path, metavar="FILE", help="with --address: see server init")


def _survey(arguments: argparse.Namespace) -> None:
    if arguments.sites is None:
        from server.commands.enrolment import begin_study

        begin_study(arguments, survey=True)
    elif arguments.name or arguments.passphrase_file:
        raise ConfigurationError("--name and --passphrase-file go with --address, not with --sites", "leave them out")
    else:
        _count_here(arguments)


def _count_here(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from csasn.study import read_study
    from server.commands.terminal import show_report
    from server.simulation.progress import Progress
    from server.simulation.simulate import Simulation, simulate

    out = arguments.out or Path("runs") / f"{read_study(arguments.study).name}-survey"
    console = Console(stderr=arguments.json)
    with Progress(console) as progress:
        survey, path = simulate(Simulation(arguments.study, arguments.sites, out, (ON,), anew=arguments.anew), progress)
    if arguments.json:
        sys.stdout.write(json.dumps(survey.as_json(), indent=1) + "\n")
    else:
        show_report(survey, path, console)
