"""What a check of `client doctor` finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from client.doctor.context import DoctorContext

UNITS = ("B", "KiB", "MiB", "GiB")
Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line, and what to do about it. A check that fails raises a `CsasnError` instead, whose exit code then counts."""

    status: Status
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Check:
    """A check, and the names of those before it without which it cannot say anything."""

    name: str
    run: Callable[[DoctorContext], Finding]
    needs: tuple[str, ...] = ()


def judge(message: str, troubles: dict[str, str]) -> Finding:
    """`message` alone where there are no troubles (text -> fix), else a warning of them."""
    if not troubles:
        return Finding("ok", message)
    return Finding(
        "warning", "; ".join(filter(None, [message, *troubles])), "; ".join(dict.fromkeys(filter(None, troubles.values())))
    )


def in_units(size_bytes: float) -> str:
    """Bytes in the unit that people read."""
    power = 0
    while size_bytes >= 1000 and power < len(UNITS) - 1:
        size_bytes, power = size_bytes / 1024, power + 1
    return f"{size_bytes:.0f} {UNITS[power]}" if size_bytes >= 100 else f"{size_bytes:.3g} {UNITS[power]}"
