"""The command `client page`."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from client.commands.enrolment import SiteFile, SiteName, open_site
from csasn.platform.terminal import option, say


def page(
    site: SiteName,
    at: Annotated[str, option("--at HOST:PORT", "where it is shown (default: 127.0.0.1:8086)")] = "127.0.0.1:8086",
    page_tls: Annotated[
        tuple[Path, Path] | None, option("--page-tls CERT KEY", "serve it over TLS, with this certificate and key (PEM)")
    ] = None,
    config: SiteFile = None,
) -> None:
    """A live page of what left this site, until Ctrl-C.

    Shows in a browser what the site does now, and by its ledger what left it, when and how large. It is read-only, asks
    nobody, and shows no image and no case. The address, with a token, is said once; other machines see it over TLS alone.

    example:
      client page --site centerA
    """
    from client.page.source import site_source
    from csasn.report.page_server import PagePlace, page_served

    source = site_source(open_site(site, config))
    with suppress(KeyboardInterrupt), page_served(source, PagePlace.of(at, page_tls, "--at"), say):
        while True:
            time.sleep(3600)
