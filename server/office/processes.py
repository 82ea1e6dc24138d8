"""The processes that `server start` keeps running: `python -m server.office.processes front|run PARENT FOLDER ...`."""

import logging
import sys
from pathlib import Path

from csasn.platform.command import log_to_stderr, run_command
from csasn.platform.supervision import end_on_sigterm, end_with_parent
from server.office.running import run
from server.office.service import serve_front


def main() -> None:
    """Entry point of a child process."""
    what, parent, folder, *more = sys.argv[1:]
    log_to_stderr()
    if what == "front":
        host, port, superlink_port = more
        end_with_parent(int(parent))
        sys.exit(run_command(lambda: serve_front(Path(folder), host, int(port), int(superlink_port))))
    end_on_sigterm()
    end_with_parent(int(parent))
    sys.exit(run_command(lambda: _run(Path(folder))))


def _run(folder: Path) -> None:
    run(folder, logging.getLogger("server").info)


if __name__ == "__main__":
    main()
