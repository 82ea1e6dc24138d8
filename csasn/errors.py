"""The one error tree. Each leaf carries the exit code with which a command ends.

A message says what was wrong, the value, what was expected, and where: lower case, no full stop. The hint says what to do.
Data errors name `manifest.csv` and the row, never a case, an image file or pixels.
"""

from collections.abc import Callable


class CsasnError(Exception):
    """Anything a person can act on. `message` is one line; `hint` is one line or empty."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., "CsasnError"], tuple[str, str]]:
        return type(self), (self.message, self.hint)  # so that the hint survives the way between processes


class ConfigurationError(CsasnError):
    """A study, site file or argument that cannot be used."""

    exit_code = 3


class DataError(CsasnError):
    """A manifest or image that cannot be used; names the row, never the case."""

    exit_code = 4


class AwayError(DataError):
    """Files that cannot be reached for now, such as those of a network share that is away: the same may work later."""


class ModelError(CsasnError):
    """Initial weights, a model file or a checkpoint that is not what it should be."""

    exit_code = 5


class TrainingError(CsasnError):
    """Training that cannot go on, such as a loss that is not finite."""

    exit_code = 6


class ProtocolError(CsasnError):
    """A message that breaks the contract of the study."""

    exit_code = 7


class QuorumError(CsasnError):
    """Fewer sites answered than the study asks for."""

    exit_code = 8


class StorageError(CsasnError):
    """A file that cannot be written or read back, such as a full disk."""

    exit_code = 9


class RunError(CsasnError):
    """A run directory that cannot be started or resumed."""

    exit_code = 10


class DiskFullError(StorageError):
    """A file that cannot be written for want of room."""


class TrustError(CsasnError):
    """A key, signature, certificate or enrolment that cannot be trusted."""

    exit_code = 11


class KeptError(TrustError):
    """What a site keeps for itself, such as its keys or its diary, cannot be read: the same works once it is brought back."""


class NetworkError(CsasnError):
    """The coordinator cannot be reached, or does not answer as one."""

    exit_code = 12


class AttentionError(CsasnError):
    """What `server status --check` or `client status --check` found, and a person has to see to."""

    exit_code = 13


class Stopped(CsasnError):  # noqa: N818 - not a fault
    """The operator stopped the run; it can be resumed."""

    exit_code = 130


def causes_of(error: BaseException) -> list[BaseException]:
    """An error and those that led to it, the last one first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found
