"""The page of a real deployment in a real browser: a site goes and comes back, the run comes to its end, and the page with it."""

import re

import httpx
import pytest

from chromium import Chromium
from csasn.platform.supervision import free_port
from e2e.deployment import COORDINATOR, Deployment

SITES = ("centerA", "centerB", "centerC")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("watched") / "deployment"
    write_small_hospitals(
        folder, SITES, num_cases=60, federation={"secure_aggregation": True, "rounds": 6, "answer_deadline_s": 240.0}
    )
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}")
    deployment.more[COORDINATOR] = ("--page", "127.0.0.1:0")
    yield deployment
    deployment.close()


def test_whoever_looks_sees_a_site_go_and_come_back_and_the_run_to_its_end(deployment):
    def address():
        return re.search(r"page: (\S+)", deployment.said(COORDINATOR))

    deployment.start_all()
    deployment.wait_for(address, "the page has its address")
    url = httpx.URL(address()[1])
    token = (deployment.folder / "coordinator/page.token").read_text()
    with Chromium() as chromium:
        chromium.open(str(url))

        def shows(place, words, within_s=180):
            chromium.until(f"document.getElementById('{place}').textContent.includes({words!r})", within_s)

        shows("status", "is under way")
        for site in SITES:
            row = f"[...document.querySelectorAll('#sites tr')].find((row) => row.textContent.startsWith('{site}')).textContent"
            chromium.until(f"{row}.includes('approved, online')")
        shows("now", "now")
        deployment.end("centerB")
        shows("sites", "awaited, not connected")
        deployment.start("centerB")
        shows("status", "finished: complete, 6 of 6 rounds are done", 400)
        shows("trust", "as it should")
        assert chromium.value("document.querySelectorAll('#answers tr').length") == 6
        assert chromium.value("document.getElementById('line').hidden")
        metrics = httpx.get(url.copy_with(path="/metrics", query=None), headers={"authorization": f"Bearer {token}"}).text
        assert "csasn_rounds_total 6\n" in metrics
        for site in SITES:
            shown = re.search(rf'csasn_site_ledger_lines{{site="{site}"}} (\d+)\.0', metrics)
            ledger = (deployment.folder / site / "state/run/ledger.jsonl").read_text().splitlines()
            assert 0 < int(shown[1]) <= len(ledger)
        deployment.end(COORDINATOR)
        shows("line", "has ended", 30)
    said = deployment.said(COORDINATOR)
    assert said.count("?token=") == 1
    assert not [words for words in ("Traceback", "ERROR", "cannot be made") if words in said]
