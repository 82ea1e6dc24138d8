"""The command `client`: what hospital IT runs."""

import argparse
import sys
from pathlib import Path

from client.commands.agent import add_commands as add_agent_commands
from client.commands.agent import run_site
from client.commands.doctor import add_commands as add_doctor_commands
from client.commands.enrolment import add_commands as add_enrolment_commands
from client.commands.imports import add_commands as add_import_commands
from client.commands.report import add_commands as add_report_commands
from client.commands.withdrawal import add_commands as add_withdrawal_commands
from csasn.errors import ConfigurationError
from csasn.platform.command import EXIT_CODES, add_health, run_command


def main() -> None:
    """Entry point of the command."""
    arguments = command_parser().parse_args()
    sys.exit(run_command(lambda: arguments.command(arguments)))


def command_parser() -> argparse.ArgumentParser:
    """The arguments of the command `client`."""
    parser = argparse.ArgumentParser(
        prog="client",
        description="A hospital's side of a CSASN federation. Images, labels and patient rows stay here.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--site", metavar="NAME", help="without a command: take part in the study until it ends, as this site")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="site file (default: sites/NAME.yaml, then /etc/csasn/NAME.yaml)"
    )
    add_health(parser)
    parser.set_defaults(command=_take_part)
    commands = parser.add_subparsers(metavar="COMMAND")
    add_enrolment_commands(commands)
    add_import_commands(commands)
    add_doctor_commands(commands)
    add_agent_commands(commands)
    add_report_commands(commands)
    add_withdrawal_commands(commands)
    return parser


def _take_part(arguments: argparse.Namespace) -> None:
    if arguments.site is None:
        raise ConfigurationError("which site?", "client --site NAME, or client --help for all commands")
    run_site(arguments)
