"""Values of a report as HTML, each marked with its place in report.json: a page cannot show another number than the report's.

`data-key` is the path, its parts joined by dots; dots and backslashes within a part are escaped by a backslash. `events.N` is line
N of events.jsonl, from 0. A value that is null or missing is shown as a dash.
"""

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

Part = str | int
DASH = "–"
MIB = 1 << 20
LONGEST = {"s": 90, "min": 5400, "h": float("inf")}  # seconds that are shown in a unit, at most
UNITS = {"s": 1, "min": 60, "h": 3600}


def key_of(*path: Part) -> str:
    """A path as one text."""
    return ".".join(str(part).replace("\\", "\\\\").replace(".", "\\.") for part in path)


def per_hundred(part: float, whole: float) -> int:
    """The share as a number of 100; 0 for none alone, 100 for all alone."""
    return round(100 * part / whole) if part in (0, whole) else min(99, max(1, int(100 * part / whole + 0.5)))


class Marked:
    """A report, its events among it, read by path; `base` is the path of the part that is looked at."""

    def __init__(self, report: Mapping[str, object], base: tuple[Part, ...] = ()) -> None:
        self._report, self._base = report, base

    def at(self, *path: Part) -> "Marked":
        """A part of the report, whose paths begin there."""
        return Marked(self._report, (*self._base, *path))

    def key(self, *path: Part) -> str:
        """The whole path as one text."""
        return key_of(*self._base, *path)

    def find(self, *path: Part) -> object:
        """What is there, None where nothing is."""
        value: object = self._report
        for part in (*self._base, *path):
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
                value = value[part]
            else:
                return None
        return value

    def items(self, *path: Part) -> list[object]:
        """The entries of a list, none where there is no list."""
        value = self.find(*path)
        return value if isinstance(value, list) else []

    def names(self, *path: Part) -> list[str]:
        """The keys of a mapping, or the texts of a list, in order."""
        value = self.find(*path)
        return [str(name) for name in value] if isinstance(value, Mapping | list) else []

    def number(self, *path: Part) -> float | None:
        """The number there, None where there is none."""
        value = self.find(*path)
        return float(value) if isinstance(value, int | float) else None

    def rate(self, *path: Part) -> Markup:
        """Three decimals, as of a rate."""
        return self._show(path, lambda value: f"{float(str(value)):.3f}")

    def count(self, *path: Part) -> Markup:
        """A whole number, in groups of three digits."""
        return self._show(path, lambda value: f"{int(str(value)):,}".replace(",", "\u202f"))

    def size(self, *path: Part) -> Markup:
        """Bytes as MiB."""
        return self._show(path, lambda value: f"{float(str(value)) / MIB:.2f} MiB")

    def seconds(self, *path: Part) -> Markup:
        """Seconds, with one decimal."""
        return self._show(path, lambda value: f"{float(str(value)):.1f} s")

    def duration(self, *path: Part) -> Markup:
        """Seconds in the unit that suits them, with one decimal."""
        return self._show(path, lambda value: _duration(float(str(value))))

    def per_hundred(self, part: tuple[Part, ...], whole: tuple[Part, ...] = ()) -> Markup:
        """A share of a number, or a rate, as so many of 100; `data-of` is the path of the whole, empty of a rate."""
        share, all_of_it = self.number(*part), self.number(*whole) if whole else 1.0
        shown = DASH if share is None or not all_of_it else per_hundred(share, all_of_it)
        return Markup('<span data-key="{}" data-of="{}">{}</span>').format(
            self.key(*part), self.key(*whole) if whole else "", shown
        )

    def difference(self, *path: Part) -> Markup:
        """By how much one rate is above another, with its sign."""
        return self._show(path, lambda value: f"{float(str(value)):+.3f}")

    def gain(self, *path: Part) -> Markup:
        """A difference and its interval; a dash where it is not known."""
        if self.number(*path, "ci95", 0) is None:
            return self.difference(*path, "value")
        ends = (self.difference(*path, "ci95", end) for end in (0, 1))
        return self.difference(*path, "value") + Markup(' <small class="interval">({} to {})</small>').format(*ends)

    def text(self, *path: Part) -> Markup:
        """A text as it is."""
        return self._show(path, str)

    def moment(self, *path: Part) -> Markup:
        """A time of an event, to the second."""
        return self._show(path, lambda value: f"{str(value)[:19].replace('T', ' ')} UTC")

    def yes_or_no(self, *path: Part) -> Markup:
        """A truth value in words."""
        return self._show(path, lambda value: "yes" if value else "no")

    def interval(self, *path: Part) -> Markup:
        """Both ends of an interval; nothing where there is none."""
        if self.number(*path, 0) is None:
            return Markup()
        return Markup('<small class="interval">{}–{}</small>').format(self.rate(*path, 0), self.rate(*path, 1))

    def rate_and_interval(self, name: str) -> Markup:
        """A rate and its interval in brackets, for a sentence."""
        interval = self.interval(f"{name}_ci95")
        return self.rate(name) + (Markup(" ({})").format(interval) if interval else Markup())

    def _show(self, path: tuple[Part, ...], form: Callable[[object], str]) -> Markup:
        value = self.find(*path)
        return Markup('<span data-key="{}">{}</span>').format(self.key(*path), DASH if value is None else form(value))


def _duration(seconds: float) -> str:
    unit = next(name for name, longest in LONGEST.items() if seconds <= longest)
    return f"{seconds / UNITS[unit]:.1f} {unit}"


def listed(names: Sequence[str], word: str = "and") -> Markup:
    """Names as a list in a sentence: a, b and c."""
    head = Markup(", ").join(names[:-1])
    return Markup("{} {} {}").format(head, word, names[-1]) if head else Markup().join(names)
