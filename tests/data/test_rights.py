"""What a site is told of a folder or manifest that its account may not read: what is in the way, whose it is, and what mends it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from csasn.data.manifest_file import manifest_sha256, manifest_stamp
from csasn.data.sheet import open_sheet
from csasn.errors import AwayError, DataError
from csasn.platform.share import require_folder

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another account is taken on by root alone")


@pytest.fixture
def folder():
    """images/ with a file and manifest.csv, of this account, seen by one without rights of its own."""
    place = Path(tempfile.mkdtemp()) / "ultrasound"
    (place / "images").mkdir(parents=True)
    (place / "images/1.png").write_text("")
    (place / "manifest.csv").write_text("case_id,image,label\n")
    place.parent.chmod(0o755)
    owner = os.geteuid()
    os.seteuid(NOBODY)  # without root's right to read everything
    try:
        yield place
    finally:
        os.seteuid(owner)
        shutil.rmtree(place.parent)


def set_mode(path, mode):
    os.seteuid(os.getuid())
    path.chmod(mode)
    os.seteuid(NOBODY)


def told(read):
    with pytest.raises(DataError) as caught:
        read()
    assert not isinstance(caught.value, AwayError)
    return caught.value.message, caught.value.hint


@pytest.mark.parametrize("mode", [0o700, 0o744, 0o600])
def test_a_folder_of_images_is_named_with_owner_mode_and_mend(folder, mode):
    images = folder / "images"
    set_mode(images, mode)
    message, hint = told(lambda: require_folder(images, "the image root"))
    assert message == f"the image root may not be read by user nobody: {images} is of root, mode {mode:04o}"
    assert hint.startswith(f"as root: setfacl -R -m u:nobody:rX {images} ")


def test_the_folder_above_that_is_in_the_way_is_the_one_that_is_named(folder):
    set_mode(folder, 0o700)
    message, hint = told(lambda: require_folder(folder / "images", "the image root"))
    assert message.endswith(f"by user nobody: {folder} is of root, mode 0700")
    assert f"setfacl -m u:nobody:x {folder} " in hint


@pytest.mark.parametrize("read", [manifest_stamp, manifest_sha256, lambda path: open_sheet(path, ())])
@pytest.mark.parametrize("mode", [0o700, 0o744])
def test_a_manifest_behind_a_closed_folder_is_told_the_same_way(folder, read, mode):
    set_mode(folder, mode)
    message, _ = told(lambda: read(folder / "manifest.csv"))
    assert f"{folder} is of root, mode {mode:04o}" in message


def test_a_manifest_itself_is_named(folder):
    set_mode(folder / "manifest.csv", 0o600)
    message, _ = told(lambda: open_sheet(folder / "manifest.csv", ()))
    assert message == f"manifest.csv may not be read by user nobody: {folder}/manifest.csv is of root, mode 0600"


def test_a_folder_that_can_be_read_is_no_trouble_and_one_that_is_not_there_is_named(folder):
    require_folder(folder / "images", "the image root")
    with pytest.raises(AwayError, match=f"the image root does not exist: {folder}/away"):
        require_folder(folder / "away", "the image root")
