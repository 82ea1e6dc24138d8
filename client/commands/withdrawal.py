"""The command `client withdraw`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.enrolment import add_site_arguments
from csasn.errors import ConfigurationError, DataError
from csasn.platform.command import Commands, add_command

if TYPE_CHECKING:
    from client.trust.withdrawal import Done

DESCRIPTION = """\
Takes a patient out of the study at this site: from its next answer on, none of their images is in a training, a cache or a count.
A running site finds out by itself. The ledger gets a line; the list of withdrawals stays in the state folder and names nobody.

Leave the patient's rows in manifest.csv until the study ends, so that no other case changes its split; their image files may be
deleted at once. What was learned before stays in the models of earlier rounds, and in those that begin from them: client audit
says which these are. The coordinator learns, as a sum over all sites, how many patients withdrew while the model was trained.

A state folder that comes back from a backup does not know of withdrawals after it: say them again."""


def add_commands(commands: Commands) -> None:
    """Adds it to the command `client`."""
    command = add_command(
        commands,
        "withdraw",
        _withdraw,
        "take a patient out of the study",
        DESCRIPTION,
        "client withdraw --site centerA --patient 4711 --why 'consent withdrawn by letter'\n"
        "  client withdraw --site centerA --patient - --why 'consent withdrawn' < number.txt",
    )
    add_site_arguments(command)
    command.add_argument(
        "--patient",
        required=True,
        metavar="ID",
        help="as in column patient_id (case_id where there is none), or the patient number of an import; - reads it from standard "
        "input, so that it stands in no history of commands",
    )
    command.add_argument("--why", required=True, metavar="TEXT", help="for the ledger, without a name or number of the patient")
    command.add_argument("--study", type=Path, metavar="FILE", help="study.yaml (default: the installed kit's)")


def _withdraw(arguments: argparse.Namespace) -> None:
    from client.doctor.context import DoctorContext
    from client.trust.withdrawal import withdraw_patient
    from csasn.data.cases import count_training_cases

    patient = (sys.stdin.readline() if arguments.patient == "-" else arguments.patient).strip()
    if not patient:
        raise ConfigurationError("which patient?", "give --patient ID, or the number on standard input with --patient -")
    context = DoctorContext(arguments.site, arguments.config, arguments.study)
    done = withdraw_patient(context.site, context.study, patient, arguments.why)
    sys.stdout.write("\n".join(_describe(arguments.site, done)) + "\n")
    try:
        count_training_cases(context.study, context.site)
    except DataError as error:
        sys.stdout.write(f"this site cannot train any more: {error.message}\n")


def _describe(site: str, done: "Done") -> list[str]:
    rows = f"{done.rows} row{'s' * (done.rows != 1)} of {done.cases} case{'s' * (done.cases != 1)}"
    lines = [f"withdrawn{'' if done.anew else ' before'}: {rows}, in nothing from this site's next answer on"]
    if done.cached:
        lines.append(f"{done.cached} of these images left the cache")
    if done.pages:
        lines.append(f"removed, since it may have shown them: {', '.join(done.pages)}")
    lines.append("leave the rows in manifest.csv until the study ends; the image files may be deleted")
    lines.append(f"next: client audit --site {site} says which models were trained with them")
    return lines
