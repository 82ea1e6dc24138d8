"""What an unreadable image says, held against what it may never say."""

from pathlib import Path

import pytest

from csasn.errors import DataError
from csasn.pictures.images import read_image


def fault(path: Path, frame: int | None = None) -> str:
    """The message of reading `path`; it may name nothing of the file."""
    with pytest.raises(DataError) as caught:
        read_image(path, frame)
    text = caught.value.message + caught.value.hint
    assert "SECRET" not in text
    assert str(path.parent) not in text
    assert caught.value.__cause__ is None
    assert caught.value.hint
    return caught.value.message
