"""The command `client report`."""

import argparse
import sys
from pathlib import Path

from client.commands.enrolment import add_site_arguments
from csasn.platform.command import Commands, add_command, bars_by_name

PAGE, FOLDER = "report.html", "report"
DESCRIPTION = """\
Measures the finished federated model on this site's own test cases and writes a page for the browser: metrics with intervals,
which class was taken for which, and the most certain mistakes and right decisions with their images.

The page shows images of patients. It is written for its owner alone (mode 0600), into the state folder, and stays there: this
command asks nobody and sends nothing.

The coordinator hands over the finished model: the files model.safetensors and model.json of the run, in one folder.

With --train-alone it also trains a model on this site's own cases, with the study's loss and as many passes as the site made in
the study, and compares both on the same test cases. That takes about as long as the study's training here."""


def add_commands(commands: Commands) -> None:
    """Adds it to the command `client`."""
    report = add_command(
        commands,
        "report",
        _report,
        "what this site gained by joining, on its own cases; nothing is sent",
        DESCRIPTION,
        "client report --site centerA --model from-coordinator --train-alone",
    )
    add_site_arguments(report)
    report.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="folder of the finished model, or run directory (default: model/ in the state folder)",
    )
    report.add_argument("--train-alone", action="store_true", help="also train on this site's own cases alone, and compare")
    report.add_argument("--out", type=Path, metavar="DIR", help=f"folder for {PAGE} (default: {FOLDER}/ in the state folder)")


def _report(arguments: argparse.Namespace) -> None:
    from client.report.page import gain_in_words, render_site_report
    from client.report.site_report import find_model, make_site_report
    from csasn.platform.storage import private_folder, writable_folder, write_atomically
    from csasn.site import find_site

    site = find_site(arguments.site, arguments.config)
    model = find_model(site, arguments.model)
    folder = writable_folder(arguments.out or private_folder(Path(site.state)) / FOLDER, 0o700)
    with bars_by_name() as bar:
        report = make_site_report(
            site, model, train_alone=arguments.train_alone, on_image=bar("reading images"), on_step=bar("training alone")
        )
    write_atomically(folder / PAGE, render_site_report(report).encode(), 0o600)
    sys.stdout.write(f"{gain_in_words(report)}\nopen {folder / PAGE}: it shows images of patients, keep it here\n")
