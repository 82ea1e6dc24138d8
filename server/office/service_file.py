"""service.json: what `server start` left for the other commands, while it is at work."""

from contextlib import suppress
from pathlib import Path

from csasn.platform.configuration import Configuration
from csasn.platform.locks import is_locked

SERVICE, LOCK = "service.json", "service.lock"


class Service(Configuration):
    """Its process, and the port of SuperLink."""

    pid: int
    superlink_port: int


def find_service(folder: Path) -> Service | None:
    """The `server start` that is at work on this folder, if any."""
    with suppress(FileNotFoundError, ValueError):
        service = Service.model_validate_json((folder / SERVICE).read_bytes())
        return service if is_locked(folder / LOCK) else None
    return None
