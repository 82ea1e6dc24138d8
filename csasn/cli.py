"""The command `csasn`: phantom data, training without a federation, and the use of a model."""

import argparse
import sys
from pathlib import Path

from csasn.command import EXIT_CODES, run_command


def main() -> None:
    """Entry point of the command."""
    arguments = _parser().parse_args()
    sys.exit(run_command(lambda: arguments.command(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="csasn",
        description="CSASN for thyroid ultrasound: phantom data, training, use of a model. For research, not for diagnosis.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_phantom(commands.add_parser("phantom", help="draw four hospitals' folders of synthetic ultrasound, with a study file"))
    return parser


def _add_phantom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder to write: study.yaml, sites/, centerA/ ... centerD/, CARD.md"
    )
    parser.add_argument("--cases", type=int, default=240, metavar="N", help="cases of each site (default 240)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same files (default 1)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--replace", action="store_true", help="replace a phantom of other settings in DIR")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE", help="draw a picture (PNG) of every class at every site")
    parser.set_defaults(command=_phantom)


def _phantom(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from csasn.data.phantom import PhantomSettings, draw_contact_sheet, write_phantom
    from csasn.errors import ConfigurationError

    if not (arguments.out or arguments.contact_sheet):
        raise ConfigurationError("phantom has nothing to write", "give --out DIR, --contact-sheet FILE, or both")
    settings = PhantomSettings(
        seed=arguments.seed, num_cases=arguments.cases, num_workers=arguments.workers, replace=arguments.replace
    )
    console = Console()
    if arguments.out:
        with Progress(console=console, disable=not console.is_terminal) as bars:
            task = bars.add_task("drawing cases", total=settings.num_cases * len(settings.mixes))
            summary = write_phantom(arguments.out, settings, lambda number: bars.advance(task, number))
        console.print(
            f"{arguments.out}: {sum(sum(s.cases.values()) for s in summary.sites)} cases; see {arguments.out}/CARD.md",
            highlight=False,
        )
    if arguments.contact_sheet:
        draw_contact_sheet(arguments.contact_sheet, settings.seed)
        console.print(f"contact sheet: {arguments.contact_sheet}", highlight=False)
