"""The command `server`: what a coordinator or a researcher runs."""

from typing import NoReturn

from csasn.platform import terminal
from csasn.platform.terminal import Command, program
from server.commands.coordinator import receipts, report, run, start, status, stop
from server.commands.enrolment import backup, enroll, init, leave, renew, restore, revoke
from server.commands.page import ALONE
from server.commands.simulate import simulate, survey
from server.commands.studies import rehearse, study

PROGRAM = program(
    "server",
    "Coordinate a CSASN federation. No patient data reaches the coordinator.",
    (
        Command(simulate, either=("resume", "anew"), alone=ALONE),
        Command(survey, either=("sites", "address"), required=True),
        *(Command(one) for one in (init, study, rehearse, enroll, leave, revoke, renew, backup, restore)),
        Command(start, alone=ALONE),
        Command(run),
        Command(status, either=("json", "check", "watch")),
        *(Command(one) for one in (stop, report, receipts)),
    ),
)


def main() -> NoReturn:
    """Entry point of the command."""
    terminal.main(PROGRAM)


if __name__ == "__main__":
    main()
