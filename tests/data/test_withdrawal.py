"""A patient who withdraws in the middle of a study: what holds them, who knows, what is said; and what cannot be trusted then."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from client.trust.audit import audit
from client.worker.worker import SiteWorker
from command_line import run_here
from csasn.data.cases import load_records, load_site_data
from csasn.data.withdrawals import WITHDRAWN_FILE, Withdrawn
from csasn.data.withdrawals import withdraw as put_on_list
from csasn.errors import TrustError
from csasn.federated.messages import Kind
from csasn.platform.storage import private_folder
from csasn.privacy.contract import USED
from csasn.privacy.ledger import EMPTY_SHA256, LEDGER_FILE, Contents, Ledger, Occasion
from csasn.site import Site
from csasn.study import Study, read_study
from csasn.trust.pseudonyms import KEY, load_pseudonyms
from page_reader import check_page
from reports import card_sections, read_lines, render_page, write_report
from server.run.outcome import write_outcome

SIZE = 64
WHY = "consent withdrawn by letter"


def withdraw(hospitals: Path, patient: str, *more: str, why: str = WHY, site: str = "centerA") -> int:
    named = ("--site", site, "--config", f"{hospitals}/sites/{site}.yaml", "--study", f"{hospitals}/study.yaml")
    return run_here("client", "withdraw", *named, "--patient", patient, "--why", why, *more)


@pytest.fixture
def hospital(tmp_path, write_small_hospitals) -> tuple[Path, Study, Site]:
    """Folder, study and centerA, whose manifest has patients: each has two cases."""
    from csasn.site import find_site

    study_file = write_small_hospitals(tmp_path / "h", num_cases=40)
    site = find_site("centerA", folder=tmp_path / "h/sites")
    path = Path(site.manifest)
    header, *rows = path.read_text().splitlines()
    numbers = [int(row[1:4]) for row in rows]
    lines = [f"{row},P{number % 4 + 4 * (number // 8)}" for row, number in zip(rows, numbers, strict=True)]
    path.write_text("\n".join([f"{header},patient_id", *lines]) + "\n")
    return tmp_path / "h", read_study(study_file), site


def cached_rows(site: Site) -> np.ndarray:
    (file,) = (Path(site.state) / "cache").glob("*.npy")
    return np.load(file)


def test_no_other_case_moves_and_the_images_leave_the_cache_at_once(hospital, capsys):
    folder, study, site = hospital
    before = load_records(study, site, SIZE)
    images = cached_rows(site)
    assert withdraw(folder, "P5") == 0
    gone = [number for number, row in enumerate(before.manifest.rows) if row.patient == "P5"]
    assert len(gone) > 2
    assert np.array_equal(cached_rows(site), np.delete(images, gone, axis=0))
    out = capsys.readouterr().out
    assert f"{len(gone)} rows of 2 cases" in out
    assert f"{len(gone)} of these images left the cache" in out
    after = load_records(study, site, SIZE)
    assert "P5" not in after.manifest.patients.values()
    assert after.splits == {case: split for case, split in before.splits.items() if case in after.splits}
    assert len(after.splits) == len(before.splits) - 2
    assert after.withdrew == (f"{len(gone)} rows are left out, of 1 who withdrew",)


def test_the_image_files_may_be_deleted_then(hospital):
    folder, study, site = hospital
    rows = [row for row in load_records(study, site, SIZE).manifest.rows if row.patient == "P5"]
    assert withdraw(folder, "P5") == 0
    for row in rows:
        (Path(site.images) / row.image).unlink()
    assert load_site_data(study, site, SIZE).left_out_32.sum() == 0


def test_neither_list_nor_ledger_nor_output_names_the_patient(hospital, capsys):
    folder, _, site = hospital
    assert withdraw(folder, "P5") == 0
    said = "".join(capsys.readouterr())
    for text in (said, *(path.read_text(errors="replace") for path in Path(site.state).rglob("*.json*"))):
        assert "P5" not in text
    assert (Path(site.state) / WITHDRAWN_FILE).stat().st_mode & 0o777 == 0o600


def test_who_is_called_by_a_pseudonym_is_found_by_number_and_the_other_way_round(hospital):
    folder, study, site = hospital
    path, hashes = Path(site.manifest), load_pseudonyms(site.keys_folder)
    plain = path.read_text()
    assert withdraw(folder, "P5") == 0
    number = len(load_records(study, site, SIZE).manifest.rows)
    path.write_text(plain.replace(",P5\n", f",{hashes.patient('P5')}\n"))  # as a later import writes it
    assert len(load_records(study, site, SIZE).manifest.rows) == number
    assert withdraw(folder, "P5") == 0
    assert len(Withdrawn.of(site).withdrawals) == 1
    path.write_text(path.read_text().replace(",P6\n", f",{hashes.patient('P6')}\n"))
    assert withdraw(folder, "P6") == 0
    path.write_text(plain)
    assert {"P5", "P6"}.isdisjoint(load_records(study, site, SIZE).manifest.patients.values())


def test_a_case_that_withdrew_takes_its_patient_along_once_patients_are_named(hospital):
    folder, study, site = hospital
    path = Path(site.manifest)
    with_patients = path.read_text()
    path.write_text("\n".join(line.rpartition(",")[0] for line in with_patients.splitlines()) + "\n")
    assert withdraw(folder, "c005") == 0
    path.write_text(with_patients)
    patient = next(line.rpartition(",")[2] for line in with_patients.splitlines() if line.startswith("c005,"))
    assert patient not in load_records(study, site, SIZE).manifest.patients.values()


@pytest.mark.parametrize(
    ("patient", "why", "code", "said"),
    [
        ("P77", WHY, 4, "no row of manifest.csv is of this patient"),
        ("P5", "p5 called", 3, "names the patient"),
        ("P5", " ", 3, "the reason is empty"),
        (" ", WHY, 3, "which patient?"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(hospital, capsys, patient, why, code, said):
    folder, _, site = hospital
    assert withdraw(folder, patient, why=why) == code
    err = capsys.readouterr().err
    assert said in err
    assert "P77" not in err
    assert not (Path(site.state) / WITHDRAWN_FILE).exists()
    assert not (site.run_folder / LEDGER_FILE).exists()


def test_a_second_time_mends_what_a_crash_left_out(hospital, monkeypatch, capsys):
    folder, _, site = hospital
    with monkeypatch.context() as patch:
        patch.setattr("client.trust.withdrawal.Ledger.note_withdrawal", lambda *_: 1 / 0)
        assert withdraw(folder, "P5") == 1
    assert len(Withdrawn.of(site).withdrawals) == 1
    ledger = site.run_folder / LEDGER_FILE
    for _ in range(2):
        assert withdraw(folder, "P5") == 0
        assert len(ledger.read_text().splitlines()) == 1
    assert "withdrawn before" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["damaged", "key lost", "other key"])
def test_a_site_that_cannot_tell_who_withdrew_uses_no_case(hospital, harm):
    folder, study, site = hospital
    assert withdraw(folder, "P5") == 0
    key = site.keys_folder / KEY
    if harm == "damaged":
        (Path(site.state) / WITHDRAWN_FILE).write_text('{"key_mark": ')
    else:
        key.unlink()
    if harm == "other key":
        load_pseudonyms(site.keys_folder)
    with pytest.raises(TrustError):
        load_records(study, site, SIZE)


def test_too_few_cases_are_told_at_once(hospital, capsys):
    folder, _, _ = hospital
    file = folder / "sites/centerA.yaml"
    file.write_text(file.read_text() + "policy: {minimum_cases: 19}\n")
    for patient in ("P5", "P6", "P7"):
        assert withdraw(folder, patient) == 0
    assert "cannot train any more: manifest.csv has" in capsys.readouterr().out


class Watched:
    """A masked run in which a patient of centerA withdraws when it is asked to train in `round`, with ledgers as of real sites."""

    def __init__(self, federate, at_round: int) -> None:
        self.at_round = at_round
        self.federation = federate("run", self._answer, num_cases=30, federation={"secure_aggregation": True, "rounds": 4})
        self.hospitals = self.federation.sites_folder.parent
        self.ledgers: dict[str, Ledger] = {}
        for name, site in self.federation.sites.items():
            self.ledgers[name] = Ledger(private_folder(site.run_folder) / LEDGER_FILE)
        self.restart()
        self.patient = next(iter(load_records(self.federation.study, self.federation.sites["centerA"], SIZE).splits))

    def restart(self) -> None:
        federation, made = self.federation, type(self.federation)._worker
        for name, ledger in self.ledgers.items():
            federation.workers.pop(name, None)
            worker = made(federation, name)
            federation.workers[name] = SiteWorker(
                federation.study,
                federation.directory.membership,
                worker.site,
                worker.kept.folder.parent,
                worker.sign,
                ledger=ledger,
            )

    def _answer(self, site, request, answer):
        header = request.header
        occasion = Occasion(header.run, header.round, header.attempt, request.kind.value)
        self.ledgers[site].append(occasion, Contents((), (), 0, EMPTY_SHA256))
        if (site, request.kind, header.round) == ("centerB", Kind.TRAIN, self.at_round):
            assert withdraw(self.hospitals, self.patient) == 0
        return answer

    @property
    def data(self):
        return self.federation.workers["centerA"].learner.load_data()


def test_from_the_next_question_on_a_patient_is_in_nothing_and_audit_report_and_card_say_so(federate, capsys):
    watched = Watched(federate, at_round=2)
    federation = watched.federation
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    report = write_report(federation.directory, "local")
    assert report["withdrawn"] == 1
    assert (len(watched.data.split_C), watched.data.left_out_32.sum()) == (29, 0)
    found = audit(watched.ledgers["centerA"].path, site="centerA")
    (withdrawal,) = found.withdrawals
    (run,) = withdrawal.runs
    assert (run.rounds, run.free_from) == ([1, 2], 3)
    assert WHY in withdrawal.why
    lines = "\n".join(found.lines())
    assert "in nothing from round 3 on; models of rounds 1 to 2 were trained with the patient" in lines
    (counted,) = federation.events("hello")
    assert sum(cases for cases, _ in counted[USED[0]]) == 30 + 33 + 36
    events = read_lines(federation.path)
    card = {name: said for section in card_sections(report) for name, said in section.rows}
    assert card["patients who withdrew while it was trained"].startswith("1; rounds before")
    page = check_page(render_page(report, events), report, events)
    assert "of the patients withdrew while it was trained" in " ".join(" ".join(e.text for e in page.elements).split())
    assert audit(watched.ledgers["centerB"].path, site="centerB").withdrawals == []


def test_a_withdrawal_before_the_study_is_in_none_of_its_counts(federate, capsys):
    watched = Watched(federate, at_round=0)
    federation = watched.federation
    assert withdraw(watched.hospitals, watched.patient) == 0
    write_outcome(federation.directory, federation.contract, federation.network, federation.run())
    assert write_report(federation.directory, "local")["withdrawn"] == 0
    (withdrawal,) = audit(watched.ledgers["centerA"].path, site="centerA").withdrawals
    (run,) = withdrawal.runs
    assert (run.rounds, run.free_from) == ([], 0)
    (counted,) = federation.events("hello")
    assert sum(cases for cases, _ in counted[USED[0]]) == 29 + 33 + 36


def test_a_list_that_forgot_somebody_is_not_worked_with(federate):
    watched = Watched(federate, at_round=0)
    federation = watched.federation
    assert withdraw(watched.hospitals, watched.patient) == 0
    federation.run()
    (Path(federation.sites["centerA"].state) / WITHDRAWN_FILE).unlink()
    watched.restart()
    worker = federation.workers["centerA"]
    worker.learner.load_data()
    question = next(request for name, request in federation.requests if name == "centerA" and request.kind is Kind.HELLO)
    with pytest.raises(TrustError, match="1 patients had withdrawn"):
        worker._note_withdrawals(question)


def test_the_json_of_the_audit_has_them(hospital, capsys):
    folder, _, _ = hospital
    assert withdraw(folder, "P5") == 0
    capsys.readouterr()
    assert run_here("client", "audit", "--site", "centerA", "--config", f"{folder}/sites/centerA.yaml", "--json") == 0
    (withdrawal,) = json.loads(capsys.readouterr().out)["withdrawals"]
    assert (withdrawal["line"], withdrawal["why"], withdrawal["runs"]) == (1, WHY, [])


def test_two_withdrawals_at_once_lose_nobody(hospital):
    _, _, site = hospital
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put_on_list(site, f"P{number}", WHY), range(24)))
    assert all(Withdrawn.of(site).find(f"P{number}") for number in range(24))


def test_a_short_number_within_a_word_of_the_reason_names_nobody(hospital):
    folder, _, site = hospital
    path = Path(site.manifest)
    path.write_text(path.read_text().replace(",P5\n", ",c\n"))
    assert withdraw(folder, "c", why="consent withdrawn") == 0
    assert withdraw(folder, "P6", why="of p6, by letter") == 3
