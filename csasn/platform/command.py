"""What every process shares: errors with a hint on standard error, exit codes, its log. Arguments are in `terminal`."""

import logging
import os
import pwd
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from csasn.errors import CsasnError, Stopped, StorageError
from csasn.platform.plain_text import plain

EXIT_CODES = """exit codes:
  0 done   2 wrong arguments   3 study or site file   4 data   5 model or weights   6 training cannot go on
  7 a message broke the contract   8 too few sites   9 a file cannot be written   10 run directory   11 not to be trusted: a key,
  signature, certificate or enrolment   12 the coordinator cannot be reached   13 status --check: a person has to see to something
  130 stopped"""


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
            CsasnError(
                f"unexpected {type(error).__name__} in {where_of(error)}", "this is a fault of the program: please report it"
            )
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


def permission_denied(error: PermissionError) -> StorageError:
    """What to tell the wrong user, in words of our own: the path may be a patient's image."""
    return StorageError(
        f"permission denied to user {user_name(os.geteuid())} in {where_of(error)}",
        "run it as the service's own user, such as runuser -u csasn -- COMMAND",
    )


def user_name(number: int) -> str:
    """A user's name, or the number of one without."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def where_of(error: BaseException) -> str:
    """The innermost of our own lines, which says where without saying what."""
    place = "unknown place"
    trace = error.__traceback__
    while trace:
        file = Path(trace.tb_frame.f_code.co_filename)
        if {"csasn", "server", "client"} & set(file.parts):
            place = f"{file.parent.name}/{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
