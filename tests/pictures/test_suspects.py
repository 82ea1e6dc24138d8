"""csasn/pictures/suspects.py and what `client doctor` says of pictures that may have been read or exported wrongly."""

from collections.abc import Callable

import numpy as np
import pytest

from client.doctor import checks_data
from csasn.pictures.picture import FLOW, SLIVER, SQUARED, Picture
from csasn.pictures.picture_facts import measure
from csasn.pictures.suspects import KINDS, find_suspects
from csasn.site import Policy
from data.test_fingerprint import Hospital, examine_data, hospital

__all__ = ["hospital"]


def tissue(seed: int, height: int = 80, width: int = 100) -> np.ndarray:
    """Dark around, speckle within."""
    rng = np.random.default_rng(seed)
    picture = rng.gamma(3, 25, (height, width)).clip(0, 255)
    picture[:8] = picture[-8:] = 0
    return picture.astype(np.uint8)


ODD: dict[str, Callable[[], Picture]] = {
    "few grey levels": lambda: Picture(tissue(0) // 16),
    "no black": lambda: Picture((90 + tissue(0) // 5).astype(np.uint8)),
    "inverted against the others": lambda: Picture(255 - tissue(0)),
    "a sliver": lambda: Picture(tissue(0, 40, 170)),
    "of another aspect than the others": lambda: Picture(tissue(0, 100, 60)),
    "colour over the B-mode": lambda: Picture(tissue(0), colour_share=0.05),
}


def suspected(*odd: Picture, others: int = 30) -> dict[str, list[int]]:
    """Places of suspects by kind, ordinary pictures first."""
    facts = [measure(picture) for picture in (*(Picture(tissue(seed)) for seed in range(1, others + 1)), *odd)]
    return {kind: np.flatnonzero(found).tolist() for kind, found in find_suspects(facts).items() if found.any()}


@pytest.mark.parametrize("kind", KINDS)
def test_one_odd_picture_among_thirty_is_suspected_of_what_is_wrong_with_it(kind: str) -> None:
    found = suspected(ODD[kind]())
    assert found[kind] == [30]
    assert all(places == [30] for places in found.values())


def test_ordinary_pictures_are_not_suspected() -> None:
    assert suspected() == {}


def test_notes_of_slivers_and_of_colour_flow_are_suspicions() -> None:
    found = suspected(Picture(tissue(0), notes=(SLIVER,)), Picture(tissue(0), notes=(FLOW,)))
    assert found == {"a sliver": [30], "colour over the B-mode": [31]}


def test_a_second_kind_of_picture_is_no_exception_and_few_pictures_have_no_rule() -> None:
    assert "of another aspect than the others" not in suspected(*(Picture(tissue(n, 100, 60)) for n in range(10)))
    assert suspected(Picture(255 - tissue(0)), Picture(tissue(0, 100, 60)), others=5) == {}


def plant(hospital: Hospital) -> None:
    """Twenty ordinary pictures in rows 2 to 21, an inverted one in row 22, one of few levels in row 23."""
    pictures = [*(tissue(seed) for seed in range(20)), 255 - tissue(99), tissue(98) // 16]
    hospital.write([(f"SECRET{n}", f"SECRET{n}.png", "PTC") for n in range(22)], pictures)


def test_doctor_names_rows_and_remedy_and_the_fingerprint_shows_each(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(hospital)
    shown = []
    draw = checks_data.draw_fingerprint
    monkeypatch.setattr(checks_data, "draw_fingerprint", lambda *given: (shown.extend(given[2]), draw(*given)))
    said = examine_data(hospital)
    assert "row 23 suspected: few grey levels" in said["pixels"]
    assert "row 22 suspected: inverted against the others" in said["pixels"]
    assert KINDS["few grey levels"] in said["pixels"]
    assert "SECRET" not in "".join(said.values())
    assert {sample.row: sample.suspicions for sample in shown if sample.row > 21} == {
        22: ("inverted against the others",),
        23: ("few grey levels",),
    }
    found = hospital.fingerprint()
    assert found.suspects == {"few grey levels": (23,), "inverted against the others": (22,)}


def test_doctor_says_what_was_read_otherwise_than_files_ask_for(hospital: Hospital) -> None:
    deep = tissue(1).astype(np.uint16) * 16
    hospital.write([("a", "a.png", "PTC"), ("b", "b.png", "benign")], [deep, tissue(2)])
    said = examine_data(hospital)["pixels"]
    assert "row 2: its values use 12 of 16 bits, it is shown by their own range" in said
    assert hospital.fingerprint().readings == {"its values use 12 of 16 bits, it is shown by their own range": (2,)}
    assert SQUARED not in hospital.fingerprint().readings


def test_small_pictures_are_taken_and_counted_or_refused_by_policy(hospital: Hospital) -> None:
    hospital.write([("a", "a.png", "PTC"), ("b", "b.png", "benign")], [tissue(1, 20, 30), tissue(2)])
    said = examine_data(hospital)["pixels"]
    assert "1 of 2 images (50%) are smaller than the model's input and are enlarged" in said
    assert hospital.fingerprint().num_enlarged == 1
    hospital.site = hospital.site.model_copy(update={"policy": Policy(min_image_px=31)})
    said = examine_data(hospital)["images"]
    assert "manifest.csv row 2, column image: the image is 30 x 20 pixels, expected a longer side of at least 31" in said
    hospital.site = hospital.site.model_copy(update={"policy": Policy(min_image_px=30)})
    assert "2 images of 2 cases read" in examine_data(hospital)["images"]


def test_an_image_of_which_nothing_is_suspected_is_said_to_be_so(hospital: Hospital) -> None:
    hospital.write([("a", "a.png", "PTC"), ("b", "b.png", "benign")], [tissue(1), tissue(2)])
    assert examine_data(hospital)["pixels"] == "✓ pixels: nothing suspected"
