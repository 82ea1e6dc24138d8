"""How reports say things: rates in three places without the leading zero, intervals in brackets, a dash where there is none."""

from collections.abc import Mapping

Facts = Mapping[str, object]


def plain(text: str) -> str:
    """Text of which matplotlib reads nothing as mathematics."""
    return text.replace("$", r"\$")


def whose_cases(absent_at_finish: object) -> str:
    """Whose test cases the federated model's metrics count; baselines are always scored on those of all sites."""
    return "the sites that answered at the end" if absent_at_finish else "all sites"


def show_rate(value: object, interval: object = None) -> str:
    """.714, or .714 (.60-.80): the ends of an interval to two places, so that three such columns fit into a terminal."""
    if value is None:
        return "-"
    rate = f"{float(str(value)):.3f}".removeprefix("0")
    if not isinstance(interval, list):
        return rate
    low, high = (f"{float(str(end)):.2f}".removeprefix("0").replace("1.00", "1.0") for end in interval)
    return f"{rate} ({low}-{high})"


def with_interval(facts: Facts, key: str) -> str:
    """The rate `key` of a report's `final`, or of one class in it, with its interval."""
    return show_rate(facts[key], facts[f"{key}_ci95"])
