"""Broken files and absent shares over the real coordinator and workers: what is counted, said, waited for, and stays the same."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from client.service.status import describe_site
from csasn.data.split import SPLITS
from csasn.errors import ProtocolError, QuorumError
from csasn.federated.messages import Absence, Kind, Reason
from csasn.privacy.contract import FAILED
from page_reader import check_page
from reports import card_sections, read_lines, render_page, write_report
from server.run.outcome import write_outcome

MASKED = {"secure_aggregation": True, "rounds": 1}


def damage(federation, site, step):
    """Cuts every `step`-th image of a site short; its rows, and the names and cases that nobody may read of."""
    lines = Path(federation.sites[site].manifest).read_text().splitlines()
    rows = list(range(2, len(lines) + 1, step))
    for row in rows:
        path = Path(federation.sites[site].images) / lines[row - 1].split(",")[1]
        path.write_bytes(path.read_bytes()[:100])
    return rows, [part for row in rows for part in lines[row - 1].split(",")[:2]]


def test_a_site_with_two_percent_broken_files_trains_and_report_card_page_and_site_say_so(federate, caplog):
    federation = federate("run", num_cases=68, federation=MASKED)
    rows, secret = damage(federation, "centerA", 60)  # 2 of 102 images
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    report = write_report(federation.directory, "local")
    listed = [len(Path(site.manifest).read_text().splitlines()) - 1 for site in federation.sites.values()]
    assert report["status"] == "complete"
    assert sum(row["images"] for row in report["data"].values()) == sum(listed)
    assert sum(row["images_used"] for row in report["data"].values()) == sum(listed) - 2
    assert sum(row["images_left_out"] for row in report["data"].values()) == 2
    assert sum(row["cases"] for row in report["data"].values()) == 68 + 71 + 74
    train = report["data"]["train"]
    assert train["cases_used"] == sum(report["training_cases"].values())
    card = {name: said for section in card_sections(report) for name, said in section.rows}
    assert card["train cases"].startswith(f"{train['cases_used']} of {train['cases']} cases used, ")
    gone = [card[f"{split} cases"].endswith("; unreadable images left out: 0") for split in SPLITS]
    assert not all(gone)
    events = read_lines(federation.path)
    page = check_page(render_page(report, events), report, events)
    text = " ".join(" ".join(element.text for element in page.elements).split())
    assert "The rest is left out: no image of them can be read at their sites." in text
    assert "It learned from" in text
    note = describe_site(federation.sites["centerA"]).left_out
    assert ["left out: 2 images that cannot be read" in line for line in note] == [True]
    for said in (note[0], caplog.text):
        assert f"rows {rows[0]}, {rows[1]}: the image is PNG, but damaged" in said
    assert describe_site(federation.sites["centerB"]).left_out == ()
    for word in secret:
        assert word not in caplog.text + str(report) + str(events)


def test_a_site_with_five_percent_broken_files_stops_with_the_list(federate, caplog):
    federation = federate("run", num_cases=68, federation={"rounds": 1})
    rows, secret = damage(federation, "centerA", 20)  # 6 of 102
    with pytest.raises(QuorumError, match="centerA: its manifest or images cannot be used"):
        federation.run()
    assert f"rows {', '.join(map(str, rows))}, column image: the image is PNG, but damaged" in caplog.text
    assert "6 of 102 images cannot be read, at most 2 may be left out" in caplog.text
    assert not federation.events("hello")
    for word in secret:
        assert word not in caplog.text


@pytest.mark.parametrize("secure", [False, True])
def test_a_site_whose_share_disappears_for_a_while_goes_on_with_the_same_bits(federate, undisturbed, tmp_path, caplog, secure):
    """In mid-run, when its worker was started anew; with masked sums while it is asked, too."""
    expected = undisturbed(federation={"secure_aggregation": secure}).state_hash()
    share, away, leaves = tmp_path / "share", tmp_path / "away", []

    def leave(site, request, answer):
        if (site, request.header.round, str(request.kind)) == ("centerA", 2, "train") and not leaves:
            leaves.append(site)
            federation.restart_worker("centerC")
            share.rename(away)
            threading.Thread(target=bring_back).start()
        return answer

    def bring_back():
        while "waiting for up to 30 s" not in caplog.text:
            time.sleep(0.05)
        away.rename(share)

    federation = federate("disturbed", tamper=leave, federation={"secure_aggregation": secure})
    site = federation.sites["centerC"]
    Path(site.images).parent.rename(share)
    places = {"images": str(share / "images"), "manifest": str(share / "manifest.csv"), "state": str(tmp_path / "state")}
    federation.sites["centerC"] = site.model_copy(update=places)
    federation.run()
    assert leaves
    assert "waiting for up to 30 s: the folder of manifest.csv does not exist" in caplog.text
    assert "the files are back after" in caplog.text
    assert federation.state_hash() == expected
    assert not [event for event in read_lines(federation.path) if event["event"] == "round-repeated"]


def test_a_share_that_stays_away_is_an_absence_with_its_reason(federate, tmp_path):
    answers = []
    federation = federate("run", tamper=lambda site, _, answer: answers.append((site, answer)) or answer,
                          federation={"answer_deadline_s": 0.5, "max_attempts": 1})  # fmt: skip
    Path(federation.sites["centerB"].images).rename(tmp_path / "away")
    with pytest.raises(QuorumError, match="centerB: its manifest or images cannot be used"):
        federation.run()
    assert Absence(Reason.IMAGES) in [answer for site, answer in answers if site == "centerB"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda blocks: blocks["histogram"].__iadd__(1000), id="more-labelled-than-used"),
        pytest.param(lambda blocks: blocks["used"][:, 1].fill(0), id="cases-without-images"),
    ],
)
def test_sums_of_hello_that_do_not_fit_each_other_are_refused(federate, change):
    federation = federate("run")
    blocks = {
        "histogram": np.array([5, 4, 3]),
        "used": np.array([[12, 20], [3, 3], [3, 4]]),
        "left_out": np.zeros((3, 2), np.int64),
    }
    federation.contract.check_sums(Kind.HELLO, 3, federation.contract.pack(Kind.HELLO, blocks))
    change(blocks)
    with pytest.raises(ProtocolError, match="summed histogram of hello"):
        federation.contract.check_sums(Kind.HELLO, 3, federation.contract.pack(Kind.HELLO, blocks))
    assert federation.contract.counts[Kind.HELLO].shapes[-1] == FAILED
