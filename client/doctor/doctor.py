"""`client doctor`: everything about a site that can be checked before a run, a line each, with what to do.

A check that fails keeps none from running but those that need what it found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from client.doctor.checks_data import DATA_CHECKS
from client.doctor.checks_machine import MACHINE_CHECKS
from client.doctor.checks_network import NETWORK_CHECKS, ROUND_CHECKS
from client.doctor.context import DoctorContext
from client.doctor.findings import Check, Finding
from csasn.errors import CsasnError
from csasn.platform.command import permission_denied
from csasn.platform.plain_text import plain

CHECKS = (*DATA_CHECKS, *MACHINE_CHECKS, *NETWORK_CHECKS, *ROUND_CHECKS)
GROUPS = {"data": DATA_CHECKS, "machine": MACHINE_CHECKS, "network": NETWORK_CHECKS}
MARKS = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}


@dataclass(frozen=True)
class Result:
    """What one check found, and the error by which it failed."""

    check: str
    finding: Finding
    error: CsasnError | None = None
    waits_for: str = ""  # the check that failed or was skipped, without which this one was not tried

    def lines(self) -> list[str]:
        """For people: a line, and below it what to do; what is skipped takes one line."""
        message, fix = plain(self.finding.message), plain(self.finding.fix)  # they may quote the coordinator
        line = f"{MARKS[self.finding.status]} {self.check}: {message}"
        if self.finding.status == "skipped":
            return [f"{line}; {fix}" if fix else line]
        return [line, f"    {fix}"] if fix else [line]

    def facts(self) -> dict[str, str]:
        """For scripts."""
        return {"check": self.check, "status": self.finding.status, "message": self.finding.message, "fix": self.finding.fix}


def checks_of(group: str) -> tuple[Check, ...]:
    """The checks of a group, and those that they need."""
    wanted = {check.name for check in GROUPS[group]}
    for check in reversed(CHECKS):
        if check.name in wanted:
            wanted.update(check.needs)
    return tuple(check for check in CHECKS if check.name in wanted)


def examine(context: DoctorContext, tell: Callable[[Result], None], checks: Sequence[Check] = CHECKS) -> list[Result]:
    """Runs the checks in order, telling each result at once."""
    results: dict[str, Result] = {}
    for check in checks:
        results[check.name] = _run(check, context, results)
        tell(results[check.name])
    return list(results.values())


def waiting_lines(results: Sequence[Result]) -> list[str]:
    """What was not tried since another check found no answer, a line for each that did not."""
    waiting: dict[str, list[str]] = {}
    for result in results:
        if result.waits_for:
            waiting.setdefault(result.waits_for, []).append(result.check)
    return [f"{MARKS['skipped']} not before {need} is in order: {', '.join(checks)}" for need, checks in waiting.items()]


def first_failure(results: Sequence[Result]) -> CsasnError | None:
    """What to end with: the kind of the first check's error that failed, and which ones did; what is wrong was told with each."""
    failed = {result.check: result.error for result in results if result.error is not None}
    if not failed:
        return None
    return type(next(iter(failed.values())))(f"{', '.join(failed)} failed", "what to do stands with each")


def _run(check: Check, context: DoctorContext, before: Mapping[str, Result]) -> Result:
    for need in check.needs:
        finding = before[need].finding
        if finding.status == "failed":
            return Result(check.name, Finding("skipped", f"not before {need} is mended"), waits_for=need)
        if finding.status == "skipped":
            return Result(check.name, Finding("skipped", finding.message, finding.fix), waits_for=before[need].waits_for or need)
    try:
        return Result(check.name, check.run(context))
    except CsasnError as error:
        failure = error
    except PermissionError as error:
        failure = permission_denied(error)
    except Exception as error:  # noqa: BLE001 - a fault of one check keeps no other from running; its foreign text is not shown
        failure = CsasnError(
            f"unexpected {type(error).__name__}", "this is a fault of the program: please report it, with --bundle"
        )
    return Result(check.name, Finding("failed", failure.message, failure.hint), failure)
