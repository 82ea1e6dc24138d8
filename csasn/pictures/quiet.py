"""Silence for decoders, whose warnings and log lines may quote what is in a file."""

import logging
import threading
import warnings


def silence_logs(*names: str) -> None:
    """Silences the loggers of packages for good; to be called after these were imported, since pydicom then sets its own level."""
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


class Quiet:
    """Silences warnings of the decoders while any thread is inside.

    Filters belong to the process: the first thread to enter sets them, the last one to leave puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|pydicom|imagecodecs|csasn\.data)\b")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                self._filters.__exit__(None, None, None)


QUIET = Quiet()
