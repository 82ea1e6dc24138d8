"""The processes that `client --site NAME` keeps running: `python -m client.service.processes node|worker PARENT ...`."""

import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from csasn.errors import StorageError
from csasn.platform.command import log_to_stderr, run_command
from csasn.platform.heap import keep_freed_memory
from csasn.platform.storage import write_json

TELL_S = 2.0


def main() -> None:
    """Entry point of a child process."""
    what, parent, *more = sys.argv[1:]
    log_to_stderr()
    run = _node if what == "node" else _worker
    sys.exit(run_command(lambda: run(int(parent), more)))


def _node(parent: int, more: list[str]) -> None:
    from client.flower.runtime import serve_node

    turns, *arguments = more
    serve_node(arguments, partial(_tell, Path(turns), [0.0]), parent)


def _tell(path: Path, last: list[float]) -> None:
    """Notes that the coordinator answered, at most every other second."""
    if (now := time.time()) - last[0] > TELL_S:
        last[0] = now
        with suppress(StorageError):  # on a full disk the SuperNode still carries what the worker says of it
            write_json(path, {"time": now}, 0o600)


def _worker(parent: int, more: list[str]) -> None:
    from client.flower.app import app
    from client.flower.runtime import work

    keep_freed_memory()
    work(int(more[0]), app, parent)


if __name__ == "__main__":
    main()
