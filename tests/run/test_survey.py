"""A survey: what is counted, what hides at a site and over all sites, and that nothing else leaves."""

import csv
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from client.flower.app import reason_of_failure
from client.trust.audit import audit
from conftest import SITES, LocalFederation, write_hospitals
from csasn import wire
from csasn.data.cases import load_records
from csasn.data.survey import count_survey
from csasn.data.survey_tables import (
    CASES,
    CLASSES,
    IMAGES,
    LABELS,
    MAKERS,
    OTHER,
    PATIENTS,
    SCANNERS,
    SEVERAL,
    SIZES,
    SMALLEST_SUM,
    UNKNOWN,
    hidden_cells,
    hidden_of,
    maker_of,
    parts_of,
    shown,
    totals,
    veil,
)
from csasn.errors import ConfigurationError, ProtocolError, QuorumError
from csasn.federated.messages import Absence, Answer, Collect, Hello, Kind, Ready, Reason, Survey
from csasn.model.network import image_size
from csasn.privacy.contract import FAILED
from csasn.privacy.gate import RefusedError, Terms, check_outgoing
from csasn.site import Policy
from csasn.study import read_study
from csasn.wire.payload import describe
from page_reader import Page, path_of, resolve
from reports import build_survey, read_lines, render_survey_page
from server.run.run_directory import describe as describe_run
from server.simulation.progress import Progress
from server.simulation.simulate import Simulation, simulate

COMMAND = Path(sys.prefix) / "bin"
SECRET = "Dr. Sommer's Zebra 9000"
WORDS = ("GE LOGIQ E9", "philips epiq 5", SECRET, "")
ECHOES = ("dark", "bright")
STUDY = {
    "survey": True,
    "tasks": {"subtype": {}, "malignancy": {"weight": 0.5}, "echogenicity": {"values": list(ECHOES)}},
    "federation": {"secure_aggregation": True},
}


def add_columns(folder, site, echo_of=lambda case: ECHOES[case % 2] if case % 3 else "", words=WORDS):
    """Gives each row of a manifest a scanner, and most cases a descriptor."""
    path = folder / site / "manifest.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    with path.open("w") as file:
        writer = csv.DictWriter(file, [*rows[0], "scanner", "echogenicity"])
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow(row | {"scanner": words[number % len(words)], "echogenicity": echo_of(int(row["case_id"][1:]))})


def write_surveyed(folder, num_cases=60, policies=None, **changes):
    """Hospitals with scanners and a descriptor, and the study file of their survey."""
    study_file = write_hospitals(folder, num_cases=num_cases, **(STUDY | changes))
    for site in SITES:
        add_columns(folder, site)
        set_policy(folder, site, (policies or {}).get(site, {}))
    return study_file


def set_policy(folder, site, policy):
    path = folder / f"sites/{site}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | ({"policy": policy} if policy else {})))


def surveyed(folder, name="run", **more):
    return LocalFederation(read_study(folder / "study.yaml"), folder / "sites", folder / "runs" / name, **more)


def tables_of_site(federation, site):
    study, place = federation.study, federation.sites[site]
    return count_survey(study, load_records(study, place, image_size(study.model)))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey") / "h"
    write_surveyed(folder, policies={"centerB": {"smallest_cell": 0}, "centerC": {"smallest_cell": 20}})
    return folder


@pytest.fixture(scope="module")
def masked(hospitals):
    """A survey that came to its end, and its sums."""
    federation = surveyed(hospitals, "masked")
    return federation, federation.count()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.001)


# ---- the rule: exhaustively, against whoever knows it, the total and all that is shown


def ambiguous(groups):
    """In each group of tables that look alike, each hidden cell has two values or more."""
    checked = 0
    for (*_, hidden), values in groups.items():
        for place in np.flatnonzero(hidden):
            assert len({value[place] for value in values}) > 1, (hidden, values)
            checked += 1
    return checked


@pytest.mark.parametrize(("smallest", "num_cells"), [(2, 3), (3, 2), (3, 4), (4, 3), (5, 2)])
def test_no_hidden_cell_follows_from_the_total_and_the_cells_that_are_shown(smallest, num_cells):
    groups = defaultdict(set)
    for cells in itertools.product(range(3 * smallest), repeat=num_cells):
        if sum(cells) >= smallest:
            hidden = hidden_cells(np.array(cells), smallest)
            assert not any(0 < cell < smallest for cell, hides in zip(cells, hidden, strict=True) if not hides)
            looks = tuple(-1 if hides else cell for cell, hides in zip(cells, hidden, strict=True))
            groups[sum(cells), looks, tuple(hidden)].add(cells)
    assert ambiguous(groups) > 10


def test_nor_from_the_totals_of_splits_and_of_all_cases():
    groups = defaultdict(set)
    for cells in itertools.product(range(7), repeat=4):
        counts = np.array(cells).reshape(2, 2)
        tables = {CASES: np.array([counts.sum()]), CLASSES: counts}
        hidden = hidden_of(tables, 3)
        looks = tuple(np.where(hidden[CLASSES], -1, counts).ravel())
        total = -1 if hidden[CASES][0] else counts.sum()
        groups[total, looks, tuple(hidden[CLASSES].ravel())].add(cells)
    assert ambiguous(groups) > 10
    for cells_alike in groups.values():
        of_splits = {(sum(cells[:2]), sum(cells[2:])) for cells in cells_alike}
        for split in range(2):
            totals_of_split = {both[split] for both in of_splits}
            assert len(totals_of_split) > 1 or not totals_of_split & {1, 2}, of_splits


@pytest.mark.parametrize("total", range(1, 5))
def test_a_site_with_fewer_cases_than_that_shows_nothing_at_all(total):
    tables = {CASES: np.array([total]), SIZES: np.array([total, 0, 0]), LABELS: np.array([[total, 0]])}
    assert all(mask.all() for mask in hidden_of(tables, 5).values())
    given = veil(tables, 5)
    assert not any(given[name].any() for name in tables)


@pytest.mark.parametrize("smallest", [0, 1])
def test_a_policy_of_zero_hides_nothing(smallest):
    tables = {CASES: np.array([7]), SIZES: np.array([1, 6, 0])}
    given = veil(tables, smallest)
    assert given[SIZES].tolist() == [1, 6, 0]
    assert not given[f"{SIZES}-hidden"].any()


def test_two_cells_that_complement_each_other_hide_together():
    given = veil({CASES: np.array([100]), LABELS: np.array([[98, 2], [60, 40], [100, 0]])}, 5)
    assert given[LABELS].tolist() == [[0, 0], [60, 40], [100, 0]]
    assert given[f"{LABELS}-hidden"].tolist() == [[1, 1], [0, 0], [0, 0]]


# ---- what a site counts


def by_hand(folder, site):
    """The same from the manifest, in another way."""
    rows = list(csv.DictReader((folder / site / "manifest.csv").read_text().splitlines()))
    cases = defaultdict(list)
    for row in rows:
        cases[row["case_id"]].append(row)
    makers = []
    for images in cases.values():
        named = {word for word in (image["scanner"] for image in images) if word}
        makers.append(
            UNKNOWN if not named else SEVERAL if len(named) > 1 else {"GE LOGIQ E9": "GE", SECRET: OTHER}.get(*named, "Philips")
        )
    return cases, Counter(makers)


@pytest.mark.parametrize("site", SITES)
def test_every_table_of_a_site_is_of_all_its_cases(hospitals, masked, site):
    federation, _ = masked
    tables = tables_of_site(federation, site)
    cases, makers = by_hand(hospitals, site)
    assert set(totals(tables)) == {len(cases)}
    assert tables[PATIENTS].tolist() == [len(cases), 0]
    assert dict(zip(MAKERS, tables[SCANNERS].tolist(), strict=True)) == dict.fromkeys(MAKERS, 0) | makers
    assert len(makers) == 5
    with_echo = sum(bool(images[0]["echogenicity"]) for images in cases.values())
    assert tables[LABELS].tolist() == [[with_echo, len(cases) - with_echo]]
    assert tables[CLASSES].sum(axis=0).tolist() == [
        *(sum(images[0]["label"] == name for images in cases.values()) for name in federation.study.classes),
        0,
    ]
    assert tables[SIZES].tolist() == [len(cases), 0, 0, 0, 0, 0]
    assert tables[IMAGES].tolist()[:2] == [sum(len(images) == number for images in cases.values()) for number in (1, 2)]


def test_a_case_counts_by_its_smallest_image_its_number_of_images_and_its_missing_class(tmp_path):
    from PIL import Image

    write_surveyed(tmp_path / "h", num_cases=12)
    folder = tmp_path / "h/centerA"
    rows = list(csv.DictReader((folder / "manifest.csv").read_text().splitlines()))
    two = next(row["case_id"] for row in rows if sum(other["case_id"] == row["case_id"] for other in rows) == 2)
    sides = iter([(520, 900), (300, 2000)])
    for row in rows:
        if row["case_id"] == two:
            height, width = next(sides)
            picture = np.random.default_rng(height).integers(0, 255, (height, width))
            Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / row["image"])
            row["label"] = ""
    with (folder / "manifest.csv").open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    tables = tables_of_site(surveyed(tmp_path / "h"), "centerA")
    assert tables[SIZES].tolist() == [11, 0, 0, 0, 1, 0]  # 900 of 900 and 2000
    assert tables[CLASSES][:, -1].sum() == 1


def test_patients_are_counted_beside_their_cases_and_few_further_ones_hide_both(tmp_path):
    write_surveyed(tmp_path / "h", num_cases=24)
    path = tmp_path / "h/centerA/manifest.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    patients = dict(zip(sorted({row["case_id"] for row in rows}), [*range(21), 3, 3, 7], strict=True))
    with path.open("w") as file:
        writer = csv.DictWriter(file, [*rows[0], "patient_id", "split"])
        writer.writeheader()
        writer.writerows(row | {"patient_id": f"p{patients[row['case_id']]}", "split": "train"} for row in rows)
    tables = tables_of_site(surveyed(tmp_path / "h"), "centerA")
    assert tables[PATIENTS].tolist() == [21, 3]
    assert veil(tables, 3)[PATIENTS].tolist() == [21, 3]
    given = veil(tables, 5)
    assert (given[PATIENTS].tolist(), given[f"{PATIENTS}-hidden"].tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize(
    ("text", "maker"),
    [
        ("", UNKNOWN),
        (" - ", UNKNOWN),
        ("GE Healthcare", "GE"),
        ("GE_LOGIQ-E9", "GE"),
        ("gehc Voluson", "GE"),
        ("Gerät 3", OTHER),
        ("Philips Medical Systems EPIQ 7G", "Philips"),
        ("SIEMENS ACUSON S2000", "Siemens"),
        ("SAMSUNG MEDISON CO., LTD. RS85", "Samsung Medison"),
        ("TOSHIBA_MEC_US TUS-A500", "Canon Toshiba"),
        ("Mindray DC-8", "Mindray"),
        ("Hitachi Aloka Medical,Ltd.", "Fujifilm Hitachi Aloka"),
        ("FUJIFILM SonoSite", "Fujifilm Hitachi Aloka"),
        ("ESAOTE MyLab70", "Esaote"),
        ("SuperSonic Imagine SA Aixplorer", "SuperSonic Hologic"),
        ("Esaote <script>", "Esaote"),
        (SECRET, OTHER),
    ],
)
def test_a_maker_is_told_by_the_word(text, maker):
    assert maker_of(text) == maker


# ---- the sums


def test_the_masked_sums_are_those_of_what_each_site_gives(masked):
    federation, sums = masked
    smallest = {"centerA": 5, "centerB": 0, "centerC": 20}
    expected = Counter()
    for site in SITES:
        given = veil(tables_of_site(federation, site), smallest[site])
        for name, block in given.items():
            expected[name] = expected[name] + block
    assert set(sums) == {*expected, FAILED[0]}
    for name, block in expected.items():
        np.testing.assert_array_equal(sums[name], block, err_msg=name)
    marks = parts_of(sums)[1]
    assert {int(mark.max()) for mark in marks.values()} >= {0, 1, 2}


def test_masked_or_plain_the_sums_are_the_same(hospitals, masked, tmp_path):
    study = yaml.safe_load((hospitals / "study.yaml").read_text())
    study["federation"]["secure_aggregation"] = False
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    federation = LocalFederation(read_study(tmp_path / "study.yaml"), hospitals / "sites", tmp_path / "run")
    plain, (hidden, sums) = federation.count(), masked
    for name, block in sums.items():
        np.testing.assert_array_equal(plain[name], block, err_msg=name)
    assert federation.events("outcome")[0]["tables"] == hidden.events("outcome")[0]["tables"]


def test_what_leaves_a_site_holds_no_small_count_of_it(hospitals, tmp_path):
    """In plain, where it can be read."""
    study = yaml.safe_load((hospitals / "study.yaml").read_text())
    study["federation"]["secure_aggregation"] = False
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    sent = {}

    def read(site, request, answer):
        sent[site] = answer
        return answer

    federation = LocalFederation(read_study(tmp_path / "study.yaml"), hospitals / "sites", tmp_path / "run", tamper=read)
    federation.count()
    for site, smallest in (("centerA", 5), ("centerC", 20)):
        tables, marks = parts_of(federation.contract.counts[Kind.SURVEY].unpack(sent[site].counts))
        own = tables_of_site(federation, site)
        assert any(((counts > 0) & (counts < smallest)).any() for counts in own.values())
        for name, counts in tables.items():
            assert not ((counts > 0) & (counts < smallest)).any(), name
            assert (marks[name][(own[name] > 0) & (own[name] < smallest)] == 1).all(), name


def test_a_site_with_another_floor_changes_its_own_part_alone(masked):
    federation, _ = masked
    own = tables_of_site(federation, "centerC")
    assert Policy().smallest_cell == 5
    assert veil(own, 5)[SCANNERS].sum() > veil(own, 20)[SCANNERS].sum()


def cells_of(told):
    return {(table["title"], row["name"]): row for table in told for row in table["rows"]}


def test_no_sum_below_ten_and_no_zero_is_shown(masked):
    federation, sums = masked
    told = cells_of(shown(federation.study, sums))
    assert all(row["count"] is None or row["count"] >= SMALLEST_SUM for row in told.values())
    assert told["Cases", "cases"] == {"name": "cases", "count": int(sums[CASES][0]), "hiding_sites": 0}
    assert told["Makers of scanners", "Esaote"]["count"] is None
    assert told["Makers of scanners", "GE"]["count"] == sums[SCANNERS][MAKERS.index("GE")]


def test_a_small_sum_is_not_shown_either_by_what_is_beside_it(masked):
    federation, sums = masked
    changed = {name: block.copy() for name, block in sums.items()}
    changed[SIZES][:] = [150, 20, 3, 16, 0, 0]
    told = cells_of(shown(federation.study, changed))
    by_size = [
        told["Longer side of a case's smallest image, in pixels", name]["count"]
        for name in ("0 to 255", "256 to 383", "384 to 511", "512 to 767")
    ]
    assert by_size == [150, 20, None, None]


def test_a_small_sum_is_in_no_file_of_the_run(tmp_path):
    """Seven cases of one site, which hides nothing: the coordinator's process has their number, nothing that it writes has it."""
    folder = tmp_path / "h"
    write_surveyed(folder, policies={site: {"smallest_cell": 0} for site in SITES})
    federation = surveyed(folder)
    add = (folder / "centerA/manifest.csv").read_text().replace("GE LOGIQ E9", "Esaote", 7)
    (folder / "centerA/manifest.csv").write_text(add)
    sums = federation.count()
    assert 0 < sums[SCANNERS][MAKERS.index("Esaote")] < SMALLEST_SUM
    events = read_lines(federation.path)
    survey = build_survey(federation.study, federation.directory.membership, "local", events)
    assert cells_of(survey["tables"])["Makers of scanners", "Esaote"]["count"] is None
    assert all(count is None or count >= SMALLEST_SUM for count in written(events) + written(survey))
    cells = [element.all_text() for element in Page(render_survey_page(survey)).elements if element.tag == "td"]
    counts = [int(cell.removesuffix(" or more")) for cell in cells[::2] if cell != "hidden"]
    assert min(counts) >= SMALLEST_SUM


def written(value):
    """Every count in what is written."""
    if isinstance(value, list):
        return [count for item in value for count in written(item)]
    if isinstance(value, dict):
        return [count for key, item in value.items() for count in ([item] if key == "count" else written(item))]
    return []


# ---- what leaves, and what is refused


def test_the_words_of_a_scanner_are_in_no_message_and_no_file_but_the_manifest(hospitals, masked):
    federation, _ = masked
    said = [request for _, request in federation.requests]
    assert {type(request) for request in said} == {Survey, Collect}
    worker = federation.workers["centerA"]
    replies = [worker.answer(request) for site, request in federation.requests if site == "centerA"]
    assert {type(reply) for reply in replies} == {Ready, Answer}
    travelled = b"".join(str(wire.answer_to_records(reply)).encode() for reply in replies)
    for word in (SECRET, "LOGIQ", "epiq"):
        assert word.encode() in (hospitals / "centerA/manifest.csv").read_bytes()
        assert word.encode() not in travelled
        for path in federation.path.rglob("*"):
            assert not path.is_file() or word.encode() not in path.read_bytes(), path.name


def test_a_survey_sends_no_model_and_makes_none(masked):
    federation, _ = masked
    assert not hasattr(federation.workers["centerA"].learner, "network")
    assert not list(federation.path.glob("checkpoints/*.safetensors"))
    assert [event["event"] for event in read_lines(federation.path) if event["event"] != "reply"] == ["survey-started", "outcome"]


@pytest.fixture(scope="module")
def contracts(hospitals, tmp_path_factory):
    """Of the survey and of its study, in plain."""
    found = []
    for survey in (True, False):
        study = yaml.safe_load((hospitals / "study.yaml").read_text()) | {"survey": survey}
        study["federation"]["secure_aggregation"] = False
        folder = tmp_path_factory.mktemp("contract")
        (folder / "study.yaml").write_text(yaml.safe_dump(study))
        found.append(LocalFederation(read_study(folder / "study.yaml"), hospitals / "sites", folder / "run"))
    return found


def test_the_gate_lets_the_counts_of_the_layout_out_and_nothing_more(contracts):
    contract = contracts[0].contract
    terms = Terms(contract, "centerA", Kind.SURVEY, 0)
    size = contract.counts[Kind.SURVEY].size

    def judge(answer):
        check_outgoing(describe(wire.answer_to_records(answer)), terms)

    judge(Answer(np.ones(size, np.int64)))
    for wrong in (
        Answer(np.ones(size + 1, np.int64)),
        Answer(np.ones(size - 1, np.int64)),
        Answer(np.full(size, -1)),
        Answer(np.ones(size, np.int64), np.ones(5, np.int16)),
    ):
        with pytest.raises(RefusedError):
            judge(wrong)
    records = wire.answer_to_records(Answer(np.ones(size, np.int64)))
    records["arrays"]["scanners"] = records["arrays"]["counts"]
    with pytest.raises(RefusedError, match="1 arrays that the study does not know"):
        check_outgoing(describe(records), terms)


def test_a_study_answers_no_survey_and_a_survey_nothing_else(contracts):
    survey, study = contracts
    for federation, question in ((survey, Hello), (study, Survey)):
        header = federation.coordinator._header(1, 0)
        worker = federation._worker("centerA")
        for request in (question(header), Collect(header, question.kind, bytes(32), ())):
            assert reason_of_failure(lambda: worker.answer(request)) == Absence(Reason.CONTENTS)  # noqa: B023
    assert isinstance(survey._worker("centerB").answer(Survey(survey.coordinator._header(1, 0))), Answer)
    assert set(survey.contract.counts) == {Kind.SURVEY}
    assert Kind.SURVEY not in study.contract.counts


@pytest.mark.parametrize(
    "what", ["a negative count", "more sites that hide than there are", "more cases in a table than there are"]
)
def test_sums_that_no_honest_sites_have_end_the_survey(contracts, masked, what):
    contract, sums = contracts[0].contract, {name: block.copy() for name, block in masked[1].items()}
    layout = contract.counts[Kind.SURVEY]
    contract.check_sums(Kind.SURVEY, 3, layout.pack(sums))
    if what == "a negative count":
        sums[SIZES][2] = -1
    elif what == "more sites that hide than there are":
        sums[f"{SIZES}-hidden"][2] = 4
    else:
        sums[LABELS][0, 0] = sums[CASES][0] + 1
    with pytest.raises(ProtocolError):
        contract.check_sums(Kind.SURVEY, 3, layout.pack(sums))


# ---- when things go wrong


def test_one_number_has_one_sum_and_a_manifest_that_changes_gets_the_next(tmp_path):
    """A coordinator that asks twice for the same gets the same bytes; after a change it has to take another number."""
    folder = tmp_path / "h"
    write_surveyed(folder, num_cases=30)
    federation = surveyed(folder, "one")
    first = federation.count()
    again = surveyed(folder, "one")
    asked = []
    again.tamper = lambda site, request, answer: asked.append((site, request.header.number, answer)) or answer
    second = again.count()
    for name, block in first.items():
        np.testing.assert_array_equal(second[name], block)
    assert {number for _, number, answer in asked if isinstance(answer, Answer)} == {1}
    with (folder / "centerA/manifest.csv").open("a") as file:
        file.write("c999,000-0.png#1,benign,GE,\n")
    changed = surveyed(folder, "one")
    for worker in ("centerA", "centerB"):
        pending = changed.path / "sites" / worker
        next(pending.glob("study-*/pending.safetensors")).unlink()
    asked = []
    changed.tamper = lambda site, request, answer: asked.append((request.header.number, answer)) or answer
    changed.count()
    assert {number for number, answer in asked if isinstance(answer, Answer) and number} >= {2}


def test_a_survey_is_of_every_site_or_of_none(tmp_path):
    folder = tmp_path / "h"
    few = {"secure_aggregation": False, "min_sites": 1, "max_partial_rounds": 1.0, "max_attempts": 2}
    write_surveyed(folder, num_cases=30, federation=few)
    federation = surveyed(folder, tamper=lambda site, _, answer: answer if site != "centerB" else None)
    with pytest.raises(QuorumError, match="survey: 2 sites answered"):
        federation.count()
    assert not federation.events("outcome")


# ---- what it is to people


def test_the_hash_of_a_study_that_is_no_survey_does_not_know_of_surveys(hospitals):
    survey = read_study(hospitals / "study.yaml")
    study = survey.model_copy(update={"survey": False})
    values = study.model_dump(mode="json")
    assert "survey" not in values
    assert study.study_hash == hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert study.of_survey == survey
    assert survey.study_hash != study.study_hash


@pytest.fixture(scope="module")
def page(masked):
    federation, _ = masked
    survey = build_survey(federation.study, federation.directory.membership, "local", read_lines(federation.path))
    return survey, Page(render_survey_page(survey))


def test_each_number_of_the_page_is_at_its_place_in_survey_json(page):
    survey, elements = page
    keyed = [element for element in elements.elements if "data-key" in element.attributes]
    for element in keyed:
        value = resolve(survey, path_of(element.attributes["data-key"]))
        if element.tag == "path":
            frame = next(item.attributes["data-frame"] for item in element.lineage() if "data-frame" in item.attributes)
            low, high, *_, start, end, _, _ = map(float, frame.split())
            place = float(element.attributes["transform"].partition("(")[2].split()[0])
            assert abs(place - (start + (value - low) / (high - low) * (end - start))) < 0.06
        else:
            assert element.all_text().replace("\u202f", "") == str(value), element.attributes
    counts = [cell["count"] for table in survey["tables"] for cell in table["rows"] if cell["count"] is not None]
    drawn = [element for element in keyed if element.tag == "path"]
    assert len(drawn) == len(counts) - 1  # the number of all cases has no bar
    words = [element.text for element in elements.elements if element.tag == "td"]
    assert words.count("hidden") == sum(cell["count"] is None for table in survey["tables"] for cell in table["rows"])


def test_the_page_asks_for_nothing(page):
    _, elements = page
    assert not {element.tag for element in elements.elements} & {"script", "img", "iframe", "object"}
    links = [value for element in elements.elements for key, value in element.attributes.items() if key in ("href", "src")]
    assert links == ["data:,"]


def test_a_survey_that_is_not_done_says_so(masked):
    federation, _ = masked
    started = [{"event": "survey-started"}]
    for events, status in ((started, "stopped"), ([*started, {"event": "failed", "error": "x"}], "failed")):
        survey = build_survey(federation.study, federation.directory.membership, "deployment", events)
        assert (survey["status"], survey["tables"]) == (status, [])
        assert "Nothing is counted yet" in render_survey_page(survey)


def run(folder, *words):
    done = subprocess.run(
        [str(COMMAND / "server"), *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"COLUMNS": "100"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_server_survey_counts_with_real_processes_what_the_federation_inside_counts(hospitals, masked, tmp_path):
    study = yaml.safe_load((hospitals / "study.yaml").read_text()) | {"survey": False}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    code, said, error = run(tmp_path, "survey", "study.yaml", "--sites", str(hospitals / "sites"))
    assert code == 0, error
    out = tmp_path / "runs/small-survey"
    survey = json.loads((out / "survey.json").read_text())
    assert (survey["status"], survey["engine"], survey["secure_aggregation"]) == ("complete", "local", True)
    assert survey["tables"] == masked[0].events("outcome")[0]["tables"]
    assert f"open {Path('runs/small-survey/survey.html')}" in said
    assert "hidden: fewer than 10 cases over all sites" in said
    assert not (out / "report.json").exists()
    assert SECRET not in said + "".join(
        path.read_text() for path in (out / "survey.json", out / "survey.html", out / "events.jsonl")
    )
    assert describe_run(out) == "a finished run"
    kinds = [json.loads(line)["kind"] for line in (out / "sites/centerA/ledger.jsonl").read_text().splitlines()]
    assert kinds == ["survey", "collect"]
    told = audit(out / "sites/centerA/ledger.jsonl", out / "received.jsonl", "centerA").lines()
    assert any("counts of cases by a fixed list, the small ones hidden; nothing was trained" in line for line in told)
    assert any(f"arrays/counts <i8 [{masked[0].contract.counts[Kind.SURVEY].size}]" in line for line in told)
    assert not any("update" in line for line in told)


def test_baselines_of_a_survey_are_refused(hospitals, tmp_path):
    with pytest.raises(ConfigurationError, match="which trains nothing"):
        simulate(Simulation(hospitals / "study.yaml", hospitals / "sites", tmp_path / "run", baselines=True), Progress(Console()))
