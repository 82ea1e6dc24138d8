"""What a person sees of a run, from its events: a bar with time left, a line a round."""

from collections.abc import Callable

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from csasn.federated.messages import Kind
from csasn.platform.plain_text import plain
from csasn.platform.terminal import progress_bars
from csasn.report.events import Event, Outcome, Repeated, Reply, RoundFinished, RoundUndone, Started
from csasn.study import Study
from server.run.telling import say_event


class Progress:
    """Shows events on a console; where it is no terminal, lines only."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = progress_bars(console)
        self._task: TaskID | None = None
        self._study: Study | None = None
        self._exchange = 0  # of those that the bar counts, the one that goes on
        self._answered: set[str] = set()  # in it
        self._weights = ""

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """One line above the bars; a site's word in it is text alone."""
        self.console.print(Text(plain(line)), soft_wrap=True)
        self.console.file.flush()  # a log file shows each line as it comes

    def federation(self, study: Study) -> None:
        """Begins the bar of the federation: hello, each site in each round, the last evaluation, finish; or a survey."""
        self._study = study
        self._say_ahead(
            f"{len(study.federation.sites)} sites read their images{'' if study.survey else '; after that each round is a line'}"
        )
        steps = (1 if study.survey else study.federation.rounds + 3) * len(study.federation.sites)
        self._task = self._bars.add_task(f"{'survey' if study.survey else 'hello'}: sites read their images", total=steps)

    def baselines(self, number: int, num_steps: int) -> Callable[[int], None]:
        """Begins the bar of the baselines; the function takes the number of steps just done."""
        self._close()
        self._say_ahead(f"{number} baselines train, {num_steps} steps in all; each is a line")
        task = self._bars.add_task(f"{number} baselines", total=num_steps)
        return lambda taken: self._bars.advance(task, taken)

    def _say_ahead(self, line: str) -> None:
        """What takes long, where no bar shows it."""
        if self._bars.disable:
            self.say(line)

    def on_event(self, event: Event) -> None:
        """Shows an event."""
        if line := say_event(event):
            self.say(f"{line}; ω {self._weights}" if isinstance(event, RoundFinished) else line)
        match event:
            case Started(event="train-started"):
                self._train_started(event)
            case Reply(said="ready" | "answered"):
                self._reply(event)
            case Repeated():
                self._answered = set()
                self._show_bar()
            case RoundUndone():
                self._answered = set()
            case Outcome():
                self._close()

    def _train_started(self, event: Started) -> None:
        if self._study and event.class_weights:
            named = zip(self._study.classes, event.class_weights, strict=True)
            self._weights = " ".join(f"{name} {value:.2f}" for name, value in named)
        if self._task is not None and self._study:
            self._bars.update(self._task, description=f"round {event.round}/{self._study.federation.rounds}")

    def _reply(self, event: Reply) -> None:
        if self._task is not None and (exchange := self._place(event.kind, event.round)) is not None:
            self._answered = {event.site} | (self._answered if exchange == self._exchange else set())
            self._exchange = exchange
            self._show_bar()

    def _place(self, kind: str, current: int) -> int | None:
        """The place of an exchange among those that the bar counts."""
        rounds = self._study.federation.rounds if self._study else 0
        return {Kind.HELLO: 0, Kind.SURVEY: 0, Kind.TRAIN: current, Kind.VALIDATE: rounds + 1, Kind.FINISH: rounds + 2}.get(
            Kind(kind)
        )

    def _show_bar(self) -> None:
        if self._task is not None and self._study:
            done = self._exchange * len(self._study.federation.sites) + len(self._answered)
            self._bars.update(self._task, completed=done)

    def _close(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, description="federation", completed=self._bars.tasks[self._task].total)
            self._task = None
