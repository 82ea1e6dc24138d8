"""Writes a man page for each command, of the words that its --help has.

python deploy/man.py FOLDER, where `man` looks for man1/
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from click import Command, Context, Group

import client.commands.cli
import csasn.commands.cli
import server.commands.cli
from csasn import __version__
from csasn.platform.terminal import command_of

PROGRAMS = (csasn.commands.cli.PROGRAM, server.commands.cli.PROGRAM, client.commands.cli.PROGRAM)


def pages(command: Command, name: str, above: Context | None = None) -> Iterator[tuple[str, str]]:
    """The page of a command and of those below it, by its file's name."""
    context = command.make_context(name, [], above, resilient_parsing=True)
    below = command.commands if isinstance(command, Group) else {}
    title = context.command_path.replace(" ", "-")
    also = ", ".join(f"{title}-{one}(1)" for one in below)
    summary = command.short_help or (command.help or "").partition(".")[0]
    text = _written(command.get_help(context).removeprefix("Usage: "))
    head = f'.TH "{title.upper()}" 1 "" "csasn {__version__}"\n.SH NAME\n{_written(f"{title} - {summary}")}\n'
    body = f".SH SYNOPSIS\n.nf\n{text}\n.fi\n" + (f".SH SEE ALSO\n{_written(also)}\n" if also else "")
    yield f"{title}.1", head + body
    for one, sub in below.items():
        yield from pages(sub, one, context)


def _written(text: str) -> str:
    """`text` in which nothing is a request of roff, and - is what can be typed; lines keep their length."""
    return "\n".join(f"\\&{line}" for line in text.replace("\\", "\\e").replace("-", "\\-").splitlines())


def write(folder: Path) -> None:
    """All pages, as FOLDER/man1/client-doctor.1."""
    (folder / "man1").mkdir(parents=True)
    for program in PROGRAMS:
        for file, page in pages(command_of(program), str(program.info.name)):
            (folder / "man1" / file).write_text(page)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
