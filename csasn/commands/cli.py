"""The command `csasn`: phantom data, training without a federation, and the use of a model."""

from importlib.metadata import entry_points
from typing import NoReturn

from csasn.commands.explain import explain
from csasn.commands.export import export
from csasn.commands.keys import study
from csasn.commands.predict import predict
from csasn.commands.training import evaluate, phantom, train
from csasn.platform import terminal
from csasn.platform.terminal import Command, program
from csasn.platform.threads import sleep_while_waiting

PROGRAM = program(
    "csasn",
    "CSASN for thyroid ultrasound: phantom data, training, use of a model. For research, not for diagnosis.",
    (
        Command(phantom),
        Command(train),
        Command(evaluate),
        Command(predict, either=("json", "csv")),
        Command(export),
        Command(explain),
        Command(study, either=("template", "explain"), required=True),
        *(entry.load() for entry in entry_points(group="csasn.commands")),
    ),
)


def main() -> NoReturn:
    """Entry point of the command."""
    sleep_while_waiting()
    terminal.main(PROGRAM)


if __name__ == "__main__":
    main()
