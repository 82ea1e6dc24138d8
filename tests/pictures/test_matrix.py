"""What we read of DICOM objects against GDCM, pixel by pixel: syntaxes x colours x planes x depths x rescale x windows."""

from collections import Counter
from pathlib import Path

import pytest

from csasn.pictures import viewer
from pictures import matrix
from pictures.matrix import Clothes


def test_objects_of_every_kind_are_shown_as_gdcm_reads_them_or_refused_by_the_element_that_is_wrong(tmp_path: Path) -> None:
    verdicts = matrix.compare(tmp_path, matrix.wardrobe())
    counts = Counter(verdict.outcome for verdict in verdicts)
    print(dict(counts))
    assert len(verdicts) >= 300
    assert not [verdict for verdict in verdicts if verdict.outcome in ("disagrees", "alone")]
    refused = {verdict.detail for verdict in verdicts if verdict.outcome == "refused"}
    assert counts["agrees"] > 0.9 * len(verdicts)
    assert all("PhotometricInterpretation (0028,0004)" in why or "PixelRepresentation (0028,0103)" in why for why in refused)


def test_a_reader_that_forgets_to_invert_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [Clothes(label="MONOCHROME1"), Clothes(inverse=True), Clothes(window=("LINEAR", 0.4, 0.5))]
    monkeypatch.setattr(viewer.Object, "text", lambda *_: "")
    assert [verdict.outcome for verdict in matrix.compare(tmp_path, objects)] == ["disagrees", "disagrees", "agrees"]
