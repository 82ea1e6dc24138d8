"""The processes that `client --site NAME` keeps running: `python -m client.service.processes node|worker PARENT ...`."""

import os
import sys
import time
from pathlib import Path

from client.worker.notes import Turn, note
from csasn.platform.command import log_to_stderr, run_command
from csasn.platform.heap import keep_freed_memory

TELL_S = 2.0


def main() -> None:
    """Runs what the command line of a child process names."""
    what, parent, *more = sys.argv[1:]
    log_to_stderr()
    run = _node if what == "node" else _worker
    sys.exit(run_command(lambda: run(int(parent), *more)))


def _node(parent: int, site_file: str, turn_file: str, *arguments: str) -> None:
    from client.flower.runtime import serve_node
    from client.trust.proxy import proxy_with_login
    from csasn.site import read_site

    if proxy := proxy_with_login(read_site(Path(site_file))):
        os.environ["HTTPS_PROXY"] = proxy  # here, where no list of processes shows the password in it
    serve_node(arguments, Teller(Path(turn_file)).tell, parent)


class Teller:
    """Notes in the file `path` that the coordinator answered, at most every other second."""

    def __init__(self, path: Path) -> None:
        self._path, self._last = path, 0.0

    def tell(self) -> None:
        """Notes it, where the last time is long enough ago."""
        if (now := time.time()) - self._last > TELL_S:
            self._last = now
            note(self._path, Turn(time=now))


def _worker(parent: int, port: str, site_file: str) -> None:
    from client.flower.app import make_app, nodes_of_hospital
    from client.flower.runtime import work

    keep_freed_memory()
    work(int(port), make_app(nodes_of_hospital(Path(site_file))), parent)


if __name__ == "__main__":
    main()
