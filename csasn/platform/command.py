"""What every command shares: errors with a hint on standard error, and exit codes."""

import argparse
import logging
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from csasn.errors import ConfigurationError, CsasnError, Stopped, StorageError
from csasn.platform.plain_text import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EXIT_CODES = """exit codes:
  0 done   2 wrong arguments   3 study or site file   4 data   5 model or weights   6 training cannot go on
  7 a message broke the contract   8 too few sites   9 a file cannot be written   10 run directory   11 not to be trusted: a key,
  signature, certificate or enrolment   12 the coordinator cannot be reached   130 stopped"""


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], summary: str, description: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand with what all share: a description in lines as written, an example, and the exit codes."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def add_health(parser: argparse.ArgumentParser) -> None:
    """The option `--health`."""
    parser.add_argument(
        "--health",
        default="",
        metavar="HOST:PORT",
        help="answer probes of Kubernetes here, by the gRPC health service: serving, or not (default: nowhere)",
    )


def progress_bars(*, transient: bool = False) -> "Progress":
    """Progress bars on standard error, where that is a terminal; transient ones vanish at the end."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=transient, disable=not console.is_terminal)


@contextmanager
def bars_by_name() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Makes a bar by its name, where standard error is a terminal; it appears when it is first told how far the work is."""
    with progress_bars(transient=True) as progress:

        def bar(name: str) -> Callable[[int, int], None]:
            task: TaskID | None = None

            def advance(done: int, total: int) -> None:
                nonlocal task
                task = progress.add_task(name) if task is None else task
                progress.update(task, completed=done, total=total)

            return advance

        yield bar


def run_command(command: Callable[[], None]) -> int:
    """Runs a command; the exit code. An error is one line and a hint; a foreign text is never printed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        command()
    except CsasnError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print_error(Stopped("stopped"))
        return Stopped.exit_code
    except BrokenPipeError:
        return 0
    except PermissionError as error:
        print_error(permission_denied(error))
        return StorageError.exit_code
    except Exception as error:  # noqa: BLE001 - the one boundary of this process
        print_error(
            CsasnError(f"unexpected {type(error).__name__} in {_where(error)}", "this is a fault of the program: please report it")
        )
        return 1
    return 0


def log_to_stderr() -> None:
    """For a process without a terminal: what our own code says, and the warnings of others."""
    logging.disable(logging.DEBUG)  # Flower's logger passes on several lines a second, which fill a disk in time
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("csasn", "server", "client"):
        logging.getLogger(name).setLevel(logging.INFO)


def print_error(error: CsasnError) -> None:
    """The error on standard error."""
    with suppress(OSError):  # a log on a full disk: the exit code says it too
        sys.stderr.write(f"error: {plain(error.message)}\n" + (f"hint: {plain(error.hint)}\n" if error.hint else ""))


def confirm(question: str, flag: str) -> None:
    """Asks a person at the terminal, and goes on only after the whole word yes. `flag` is what a script gives instead.

    Raises:
        ConfigurationError: standard input is no terminal.
        Stopped: the answer was another.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError("this wants a yes, and standard input is no terminal", f"run it in a terminal, or give {flag}")
    try:
        answer = input(f"{question} [yes/no] ")
    except EOFError:  # Ctrl-D, which leaves the cursor behind the question
        sys.stdout.write("\n")
        answer = ""
    if answer.strip().lower() != "yes":
        raise Stopped("not confirmed, nothing was changed")


def permission_denied(error: PermissionError) -> StorageError:
    """What to tell the wrong user, in words of our own: the path may be a patient's image."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return StorageError(
        f"permission denied to user {user} in {_where(error)}",
        "run it as the service's own user, such as runuser -u csasn -- COMMAND",
    )


def _where(error: BaseException) -> str:
    """The innermost of our own lines, which says where without saying what."""
    place = "unknown place"
    trace = error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if {"csasn", "server", "client"} & set(file.parts):
            place = f"{file.parent.name}/{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
