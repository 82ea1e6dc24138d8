"""What a person sees of a run, from its events: a bar with time left, a line a round."""

from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import TaskID
from rich.text import Text

from csasn.federated.messages import Kind
from csasn.platform.plain_text import plain
from csasn.platform.terminal import progress_bars
from csasn.study import Study
from server.run.waits import ANSWERED, READY

Event = Mapping[str, object]


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
        steps = (1 if study.survey else study.federation.rounds + 3) * len(study.federation.sites)
        self._task = self._bars.add_task(f"{'survey' if study.survey else 'hello'}: sites read their images", total=steps)

    def baselines(self, number: int, num_steps: int) -> Callable[[int], None]:
        """Begins the bar of the baselines; the function takes the number of steps just done."""
        self._close()
        task = self._bars.add_task(f"{number} baselines", total=num_steps)
        return lambda taken: self._bars.advance(task, taken)

    def on_event(self, event: Event) -> None:
        """Shows an event."""
        show = {
            "train-started": self._train_started,
            "reply": self._reply,
            "evaluated": self._evaluated,
            "round-finished": self._round_finished,
            "round-repeated": self._repeated,
            "exchange-repeated": self._repeated,
            "evaluation-withheld": self._withheld,
            "round-undone": self._undone,
            "totals-changed": self._changed,
            "ledger-marked": self._marked,
            "waiting": self._waiting,
            "outcome": lambda _: self._close(),
            "baseline": self._baseline,
        }.get(str(event["event"]))
        if show:
            show(event)

    def _train_started(self, event: Event) -> None:
        weights = event["class_weights"]
        if self._study and isinstance(weights, list):
            self._weights = " ".join(f"{name} {value:.2f}" for name, value in zip(self._study.classes, weights, strict=True))
        self._describe(event["round"])

    def _reply(self, event: Event) -> None:
        if event["said"] not in (READY, ANSWERED):
            self.say(f"  {event['site']}: {event['said']}")
        elif self._task is not None and (exchange := self._place(str(event["kind"]), int(str(event["round"])))) is not None:
            self._answered = {str(event["site"])} | (self._answered if exchange == self._exchange else set())
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

    def _describe(self, current: object) -> None:
        if self._task is not None and self._study:
            self._bars.update(self._task, description=f"round {current}/{self._study.federation.rounds}")

    def _evaluated(self, event: Event) -> None:
        auroc, accuracy = (_show(event[key]) for key in ("macro_auroc", "balanced_accuracy"))
        self.say(f"  model of round {event['round']}: macro AUROC {auroc}, balanced accuracy {accuracy} (validation cases)")

    def _round_finished(self, event: Event) -> None:
        participants, absent = event["participants"], event["absent"]
        assert isinstance(participants, list)
        assert isinstance(absent, dict)
        missing = f", without {', '.join(absent)}" if absent else ""
        loss = f", training loss {_show(event['train_loss'])}" if "train_loss" in event else ""
        self.say(f"round {event['round']}: {len(participants)} sites{missing}, {event['seconds']} s{loss}; ω {self._weights}")

    def _repeated(self, event: Event) -> None:
        absent = event["absent"]
        assert isinstance(absent, dict)
        reasons = "; ".join(f"{site}: {reason}" for site, reason in absent.items())
        self.say(f"  attempt {event['attempt']} is repeated: {reasons}")
        self._answered = set()
        self._show_bar()

    def _withheld(self, event: Event) -> None:
        self.say(f"  metrics of the model of round {event['round']} are withheld: a site is missing")

    def _undone(self, event: Event) -> None:
        self.say(f"  round {event['round']} is undone, and trained once more: {event['why']}")
        self._answered = set()

    def _changed(self, event: Event) -> None:
        self.say(
            f"  validation cases of each class were {_listed(event['before'])}, and are {_listed(event['now'])}: did a site change "
            "its manifest?"
        )

    def _marked(self, event: Event) -> None:
        self.say(f"  {event['site']}: {event['how']}")

    def _waiting(self, event: Event) -> None:
        sites = event["sites"]
        assert isinstance(sites, dict)
        if sites:
            self.say(f"  waiting for {'; '.join(f'{site}: {why}' for site, why in sites.items())}")

    def _baseline(self, event: Event) -> None:
        final = event["final"]
        assert isinstance(final, dict)
        auroc, accuracy = _show(final["macro_auroc"]), _show(final["balanced_accuracy"])
        self.say(f"baseline {event['name']}: macro AUROC {auroc}, balanced accuracy {accuracy} (test cases of all sites)")

    def _close(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, description="federation", completed=self._bars.tasks[self._task].total)
            self._task = None


def _listed(numbers: object) -> str:
    return " ".join(map(str, numbers)) if isinstance(numbers, list) else str(numbers)


def _show(value: object) -> str:
    return "-" if value is None else f"{float(str(value)):.3f}"
