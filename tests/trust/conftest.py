"""A federation that is about to enrol."""

import pytest

from enrolling import Federation


@pytest.fixture
def federation(tmp_path, write_small_hospitals, monkeypatch, capsys):
    write_small_hospitals(tmp_path / "h")
    return Federation(tmp_path / "h", monkeypatch, capsys)
