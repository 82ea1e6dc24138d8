"""What the grids of these tests train on."""

import pytest


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory, write_small_hospitals):
    folder = tmp_path_factory.mktemp("grid")
    write_small_hospitals(folder / "hospitals", federation={"rounds": 1})
    return folder
