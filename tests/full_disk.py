"""A disk without room, for this process alone."""

import resource
from contextlib import contextmanager


@contextmanager
def room_for(size_bytes):
    """Within the block no file of this process grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
