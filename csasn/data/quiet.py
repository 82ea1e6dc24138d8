"""Silence for decoders, whose warnings and log lines may quote what is in a file."""

import logging
import threading
import warnings


class Quiet:
    """Silences warnings and log lines of the decoders while any thread is inside.

    Filters and levels belong to the process: the first thread to enter sets them, the last one to leave puts them back.
    """

    _NAMES = ("PIL", "pydicom", "imagecodecs")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._warnings = warnings.catch_warnings()
        self._levels: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            self._num_inside += 1
            if self._num_inside > 1:
                return
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pydicom|imagecodecs|csasn\.data)\b")
            loggers = [logging.getLogger(name) for name in self._NAMES]
            self._levels = [logger.level for logger in loggers]
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside:
                return
            self._warnings.__exit__(None, None, None)
            for name, level in zip(self._NAMES, self._levels, strict=True):
                logging.getLogger(name).setLevel(level)


QUIET = Quiet()
