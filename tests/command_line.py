"""Command lines of the three programs, in this process."""

import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from unittest.mock import patch

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


@dataclass(frozen=True)
class Ended:
    """What a command line came to, as of a process."""

    returncode: int
    stdout: str
    stderr: str


def run_quietly(program: str, *words: object, env: Mapping[str, str] | None = None) -> Ended:
    """A command line in this process, where its libraries are loaded already; with variables of the environment besides."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err, patch.dict(os.environ, env or {}):
        code = run_here(program, *words)
    return Ended(code, out.getvalue(), err.getvalue())


def run_here(program: str, *words: object) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as ended:
        terminal.main(PROGRAMS[program], list(map(str, words)))
    assert isinstance(ended.value.code, int)
    return ended.value.code
