"""Command lines of the three programs, in this process."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest

import client.commands.cli
import csasn.commands.cli
import server.commands.cli
from csasn.platform import terminal

PROGRAMS = {"csasn": csasn.commands.cli.PROGRAM, "server": server.commands.cli.PROGRAM, "client": client.commands.cli.PROGRAM}


def parse(program: str, *words: object) -> Callable[[], None]:
    """What a command line asks for, not yet done."""
    asked = terminal.parse(PROGRAMS[program], list(map(str, words)))
    assert not isinstance(asked, int), "help was asked for"
    return asked


def arguments(program: str, *words: object) -> Mapping[str, object]:
    """The arguments that a command takes from a command line, by name."""
    asked = parse(program, *words)
    assert isinstance(asked, partial)
    return asked.keywords


def run_here(program: str, *words: object) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as ended:
        terminal.main(PROGRAMS[program], list(map(str, words)))
    assert isinstance(ended.value.code, int)
    return ended.value.code
