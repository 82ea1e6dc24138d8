"""What the three commands share on a terminal: functions as commands on typer, words, tables and progress bars on rich."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from inspect import cleandoc
from itertools import zip_longest
from re import Pattern
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

import typer
from click import ClickException, Context, HelpFormatter, UsageError, version_option
from click import Command as ClickCommand
from typer.core import TyperArgument, TyperCommand
from typer.main import get_command

from csasn import __version__
from csasn.errors import ConfigurationError, Stopped
from csasn.platform.command import EXIT_CODES, run_command
from csasn.platform.plain_text import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WIDTH = 160  # of tables in a file or a pipe, which have no edge
EXAMPLE = "\n\nexample:\n"


class _PlainCommand(TyperCommand):
    """A command whose help is words alone, also where typer 0.20 and click 8.5 stand in each other's way."""

    alone: Mapping[str, tuple[str, Pattern[str]]] = {}

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Gives an option that stands without its value the one that it has then: typer knows no such options."""
        given = []
        for word, following in zip_longest(args, args[1:], fillvalue=""):
            given.append(word)
            if word in self.alone and not self.alone[word][1].fullmatch(following):
                given.append(self.alone[word][0])
        return super().parse_args(ctx, given)

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes arguments and options; click forgets what typer told it of an argument."""
        told = get_type_hints(self.callback, include_extras=True)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                parameter.help = told[str(parameter.name)].__metadata__[0].help
        super().format_options(ctx, formatter)

    def format_arguments(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes nothing: typer writes the arguments above the options."""

    def get_help(self, ctx: Context) -> str:
        """The help, in which typer escapes a bracket for rich."""
        return super().get_help(ctx).replace("\\[", "[")


@dataclass(frozen=True)
class Command:
    """A function as a command: its parameters are the arguments, its docstring is the help, and `more` where that is long.

    The docstring's first line is the summary; what follows "example:" stands below the arguments. Of the parameters `either`
    at most one may be given, and one has to be where that is `required`. An option in `alone` may stand without its value: then it
    has that one, unless what follows it has the form of one.
    """

    run: Callable[..., None]
    more: str = ""
    either: tuple[str, ...] = ()
    required: bool = False
    alone: Mapping[str, tuple[str, Pattern[str]]] = field(default_factory=dict)

    def add_to(self, app: typer.Typer) -> None:
        """Makes it one of the commands of `app`."""
        text, mark, example = cleandoc(f"{self.run.__doc__}\n\n{self.more}").partition(EXAMPLE)
        summary = text.partition("\n")[0].rstrip(".")
        choice = f"{'one' if self.required else 'at most one'} of {self._flags}\n\n" if self.either else ""
        app.command(
            self.run.__name__.strip("_"),
            cls=type("_Command", (_PlainCommand,), {"alone": self.alone}),
            help=_as_written(text),
            short_help=summary[0].lower() + summary[1:],
            epilog=_as_written(choice + (f"{mark.strip()}\n{example}\n\n" if mark else "") + f"exit codes: {app.info.name} --help"),
        )(self.asked())

    def asked(self) -> Callable[..., Callable[[], None]]:
        """What typer calls: it checks the arguments and binds them to the function, and does not call that."""

        @wraps(self.run)
        def bind(**arguments: object) -> Callable[[], None]:
            given = [_flag(name) for name in self.either if arguments[name] not in (None, False)]
            if len(given) > 1:
                raise UsageError(f"argument {given[1]}: not allowed with argument {given[0]}")
            if self.required and not given:
                raise UsageError(f"one of the arguments {self._flags} is required")
            return partial(self.run, **arguments)

        return bind

    @property
    def _flags(self) -> str:
        return ", ".join(map(_flag, self.either))


def program(name: str, about: str, commands: Iterable[Command], without_command: Callable[..., None] | None = None) -> typer.Typer:
    """A command that holds others; `without_command` is what it does by itself."""
    app = typer.Typer(
        name=name,
        help=about,
        epilog=_as_written(EXIT_CODES),
        invoke_without_command=without_command is not None,
        rich_markup_mode=None,  # brackets in a help text are words, and help in a pipe has no frames
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 132},
    )
    if without_command:
        app.callback()(Command(without_command).asked())
    for command in commands:
        command.add_to(app)
    return app


def option(spec: str, about: str, numbers: tuple[int | None, int | None] = (None, None)) -> Any:
    """An option of a command, such as `option("--out DIR", "folder to write")`; `numbers` are the least and the largest."""
    words = spec.split()
    names = [word for word in words if word.startswith("-")]
    return typer.Option(
        *names, metavar=" ".join(words[len(names) :]) or None, help=about, show_default=False, min=numbers[0], max=numbers[1]
    )


def argument(metavar: str, about: str) -> Any:
    """An argument of a command that has its place and no name."""
    return typer.Argument(metavar=metavar, help=about, show_default=False)


Health = Annotated[
    str,
    option(
        "--health HOST:PORT",
        "answer probes of Kubernetes here, by the gRPC health service: serving, or not (default: nowhere)",
    ),
]


def command_of(app: typer.Typer) -> ClickCommand:
    """A program as click sees it, with --version."""
    return version_option(__version__, "--version", message="%(prog)s %(version)s")(get_command(app))


def parse(app: typer.Typer, words: list[str] | None = None) -> Callable[[], None] | int:
    """What a command line asks for, not yet done; or the exit code, where its help is all that it asks for.

    Raises:
        ClickException: these are no arguments of the command.
    """
    asked: Callable[[], None] | int = command_of(app).main(words, prog_name=app.info.name, standalone_mode=False)
    return asked


def main(app: typer.Typer, words: list[str] | None = None) -> NoReturn:
    """Does what a command line asks for, that of this process where `words` are not given, and ends with its exit code."""
    try:
        asked = parse(app, words)
    except ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(asked if isinstance(asked, int) else run_command(asked))


def say(*lines: str) -> None:
    """Lines on standard output; they may quote another machine."""
    sys.stdout.write("".join(f"{plain(line)}\n" for line in lines))
    sys.stdout.flush()


def say_json(value: object) -> None:
    """JSON on standard output, for scripts."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def console(*, stderr: bool = False) -> "Console":
    """Where tables are printed: as wide as the terminal, and in a file or a pipe wide enough to cut nothing off."""
    from rich.console import Console

    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=max(found.width, WIDTH))


def progress_bars(where: "Console | None" = None, *, transient: bool = False, speed_over_s: float = 30.0) -> "Progress":
    """Progress bars, on standard error unless said otherwise, where a terminal can show them; transient ones vanish at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    where = where or console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(
        *columns, console=where, transient=transient, speed_estimate_period=speed_over_s, disable=not where.is_interactive
    )


def bar(bars: "Progress", name: str) -> Callable[[int, int], None]:
    """A bar that appears when it is first told how many are done, of how many."""
    task = bars.add_task(name, start=False, visible=False)

    def advance(done: int, total: int) -> None:
        bars.start()
        bars.start_task(task)
        bars.update(task, completed=done, total=total, visible=True)

    return advance


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


def _flag(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


def _as_written(text: str) -> str:
    """`text` as click prints it without filling its lines."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in text.split("\n\n"))
