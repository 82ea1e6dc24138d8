"""The command `client`: what hospital IT runs."""

from typing import NoReturn

from client.commands import doctor, imports
from client.commands.agent import audit, pause, status, take_part
from client.commands.enrolment import approve, backup, enroll, install, keygen, restore
from client.commands.keys import site
from client.commands.page import page
from client.commands.report import report
from client.commands.withdrawal import withdraw
from csasn.platform import terminal
from csasn.platform.terminal import Command, program

PROGRAM = program(
    "client",
    "A hospital's side of a CSASN federation. Images, labels and patient rows stay here.",
    (
        *(Command(one) for one in (keygen, enroll, install, approve, backup, restore)),
        Command(site, either=("template", "explain"), required=True),
        Command(imports.import_, imports.MORE, ("dicom", "dicomweb", "approve", "discard", "pseudonyms"), required=True),
        Command(doctor.doctor, doctor.MORE),
        Command(status, either=("json", "check")),
        *(Command(one) for one in (pause, audit, page, report, withdraw)),
    ),
    without_command=take_part,
)


def main() -> NoReturn:
    """Entry point of the command."""
    terminal.main(PROGRAM)


if __name__ == "__main__":
    main()
