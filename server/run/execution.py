"""One execution of a run, on whichever engine: what it leaves behind, however it ends."""

from collections.abc import Callable

from csasn.errors import CsasnError, StorageError
from csasn.report.types import Engine, Report, SurveyReport
from server.run.outcome import write_report
from server.run.run_directory import RunDirectory, has_outcome, is_finished


def carry_out(
    directory: RunDirectory, engine: Engine, federate: Callable[[], None], finish: Callable[[], None] = lambda: None
) -> Report | SurveyReport:
    """Runs `federate` unless the run has its outcome already, then `finish`; writes the report and gives the directory back.

    A finished run keeps its report until it has another. A file that cannot be written is no failure of the run, which goes on once
    there is room.

    Raises:
        Exception: what either raises, after the run's events and report say so.
    """
    try:
        if not is_finished(directory.path):
            directory.drop_report()
        try:
            if not has_outcome(directory.path):
                federate()
            finish()
            directory.event("run-finished")
        except StorageError:
            raise
        except KeyboardInterrupt:
            directory.event("stopped")
            raise
        except Exception as error:
            directory.event("failed", error=error.message if isinstance(error, CsasnError) else type(error).__name__)
            raise
        finally:
            report = write_report(directory, engine)
        return report
    finally:
        directory.close()
