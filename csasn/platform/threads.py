"""Threads that wait for each other sleep, where they would spin and keep processors from those they wait for."""

import ctypes
from contextlib import suppress


def sleep_while_waiting() -> None:
    """Says so to the OpenMP runtime, which reads it when torch is loaded and not later; what the environment says already stays.

    Beside much other work on two cores a small step of two threads took 4.0 s of processor time spinning, and .10 s asleep.
    """
    with suppress(OSError, AttributeError, TypeError):  # a C library without setenv: they spin as before
        ctypes.CDLL(None).setenv(b"OMP_WAIT_POLICY", b"PASSIVE", 0)
