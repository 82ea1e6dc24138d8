"""The page of a site as it goes on: what it does now, and what has left it."""

from collections.abc import Hashable
from datetime import UTC, datetime
from pathlib import Path

from client.page.leaving import Leaving, asked_in_words, left_in_words
from client.service.status import describe_site
from client.worker.notes import DOING
from csasn.platform.plain_text import in_time
from csasn.platform.storage import file_stamp
from csasn.privacy.ledger import LEDGER_FILE
from csasn.report.live_page import Shown, Source
from csasn.report.marked import MIB
from csasn.report.rendering import render_parts
from csasn.site import Site

MOST = 200  # lines that are shown


def site_source(site: Site) -> Source:
    """The page of a site; its ledger may not be there yet."""
    leaving = Leaving(site.run_folder)

    def state() -> Hashable:
        return tuple(file_stamp(path) for path in (site.run_folder / LEDGER_FILE, Path(site.state) / DOING))

    def show() -> Shown:
        entries, status = leaving.read(), describe_site(site)
        told = [(entry, asked_in_words(entry), left_in_words(entry)) for entry in reversed(entries[-MOST:])]
        facts = {
            "leaving": leaving, "status_now": status, "told": told, "mib": MIB, "in_time": in_time,
            "made": datetime.now(UTC), "num_bytes": sum(entry.bytes for entry in leaving.sent),
            "runs": dict.fromkeys(entry.run for entry in leaving.sent),
            "arrays": sorted({name.rpartition("/")[2] for entry in leaving.sent for name, *_ in entry.arrays}),
        }  # fmt: skip
        return Shown(render_parts("site_sections.html", ("status", "facts", "whole", "left"), **facts))

    return Source(f"{site.called}: what left", "site_page.html", state, show)
