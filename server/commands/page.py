"""The option of a live page, of `server start` and `server simulate`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from csasn.errors import ConfigurationError
from csasn.platform.terminal import option

if TYPE_CHECKING:
    from csasn.report.live_page import Source

ALONE = {"--page": ("127.0.0.1:8085", re.compile(r"[^-].*:.*|[0-9]+"))}
Page = Annotated[
    str,
    option(
        "--page [HOST:PORT]",
        "show a live page there, and metrics for Prometheus at /metrics (default: 127.0.0.1:8085); its address, with a token, is "
        "said once. Seen from other machines only with --page-tls",
    ),
]
PageTls = Annotated[
    tuple[Path, Path] | None, option("--page-tls CERT KEY", "with --page: serve it over TLS, with this certificate and key (PEM)")
]


@contextmanager
def page_shown(
    page: str,
    tls: tuple[Path, Path] | None,
    source: "Callable[[], Source]",
    say: Callable[[str], None],
    token_file: Path | None = None,
) -> Iterator[None]:
    """Serves the page as long as the block lasts, where one is asked for.

    Raises:
        ConfigurationError: it cannot be served there.
    """
    if not page:
        if tls:
            raise ConfigurationError("--page-tls is given without --page", "name the address with --page HOST:PORT")
        yield
        return
    from csasn.report.page_server import PagePlace, page_served  # a web server, which only who asks for a page needs

    with page_served(source(), PagePlace.of(page, tls), say, token_file):
        yield
