"""Damaged and hostile files: every reader of foreign files answers with a result or a `CsasnError`, in bounded time and memory."""

import io
import random
import re
import resource
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import yaml
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from csasn.data.images import read_image
from csasn.data.manifest import read_manifest
from csasn.errors import CsasnError
from csasn.site import read_site
from csasn.study import Federation, Study, Task, read_study

SECONDS, GROWTH_MIB = 5.0, 1024  # for one input; a shared machine may stop a process for a moment
QUICK, SLOW = 600, 20_000  # inputs a reader
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)
DICOM_FILES = (
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "JPGExtended.dcm",
    "JPEGLSNearLossless_08.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "image_dfl.dcm",
)
TOKENS = (
    *(
        b"[",
        b"]",
        b"{",
        b"}",
        b"- ",
        b": ",
        b"? ",
        b"#",
        b"'",
        b'"',
        b"|",
        b">",
        b"%",
        b"@",
        b"`",
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b",",
    ),
    *(
        b"!!python/object/apply:os.system",
        b"!!binary",
        b"!!timestamp",
        b"&a ",
        b"*a ",
        b"null",
        b".nan",
        b".inf",
        b"1e999",
        b"0x",
        b"1:2:3",
        b"---",
    ),
    *(
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"\xed\xa0\x80",
        b"2026-13-45",
        b"9" * 5000,
        b"A" * 70_000,
        b"..",
        b"/",
        b"\\",
    ),
)
STUDY = Study(
    name="thyroid",
    classes=("benign", "PTC", "FTC"),
    tasks={"subtype": Task(), "margin": Task(values=("smooth", "irregular"))},
    federation=Federation(sites=("centerA",)),
)
Change = Callable[[random.Random, bytes], bytes]


def flip_bytes(rng: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    reach = len(result) if rng.random() < 0.5 else min(len(result), 2000)  # half of them in the header
    for _ in range(rng.randint(1, 12)):
        result[rng.randrange(reach)] = rng.randrange(256)
    return bytes(result)


def set_number(rng: random.Random, data: bytes) -> bytes:
    """A count or a length that is as wrong as it can be."""
    size, number = rng.choice((1, 2, 4)), rng.choice(NUMBERS)
    place = rng.randrange(max(1, min(len(data), rng.choice((300, 2000, 1 << 30))) - size))
    value = (number & ((1 << 8 * size) - 1)).to_bytes(size, rng.choice(("little", "big")))
    return data[:place] + value + data[place + size :]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def move_piece(rng: random.Random, data: bytes) -> bytes:
    """A piece deleted, doubled, or copied elsewhere."""
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 4, 16, 100, 1000))]
    place = rng.choice((start, rng.randrange(len(data))))
    return data[:place] + piece * rng.choice((1, 1, 2, 50)) + data[place + rng.choice((0, len(piece))) :]


def put_token(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.choice(TOKENS) * rng.choice((1, 1, 2, 30)) + data[place + rng.choice((0, 0, 3)) :]


def shuffle_lines(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    if rng.random() < 0.5:
        lines[first] = b" " * rng.randint(0, 6) + lines[first].lstrip()
    return b"\n".join(lines)


def change_element(rng: random.Random, data: bytes) -> bytes:
    """Another tag, kind or length for one element of an explicit DICOM file, found by its two capital letters."""
    places = [
        place
        for place in range(4, min(len(data) - 8, 4000))
        if data[place : place + 2].isalpha() and data[place : place + 2].isupper()
    ]
    if not places:
        return flip_bytes(rng, data)
    place = rng.choice(places)
    header = bytearray(data[place - 4 : place + 4])
    what = rng.randrange(3)
    if what == 0:
        header[:4] = struct.pack(
            "<HH", rng.choice((2, 8, 0x18, 0x28, 0x7FE0, 0xFFFE)), rng.choice((0, 5, 8, 0x10, 0x11, 0x6011, 0xE000))
        )
    elif what == 1:
        header[4:6] = rng.choice((b"SQ", b"OB", b"OW", b"US", b"DS", b"IS", b"UN", b"UT", b"AT", b"FD", b"zz", b"\0\0"))
    else:
        header[6:8] = struct.pack("<H", rng.choice((0, 1, 2, 3, 0x10, 0x7FFF, 0xFFFE, 0xFFFF)))
    return data[: place - 4] + bytes(header) + data[place + 4 :]


BINARY: tuple[Change, ...] = (flip_bytes, set_number, cut, move_piece)
TEXT: tuple[Change, ...] = (flip_bytes, cut, move_piece, put_token, put_token, shuffle_lines)


@dataclass(frozen=True)
class Target:
    """A reader, what it reads, and how that is changed."""

    read: Callable[[Path], object]
    ending: str
    changes: tuple[Change, ...]
    seeds: Callable[[], Sequence[bytes]]


def manifests() -> list[bytes]:
    rows = [f"case{number // 2},folder/{number}.dcm#{number + 1},{STUDY.classes[number // 2 % 3]},,smooth" for number in range(12)]
    text = "\n".join(("case_id,image,label,split,margin", *rows))
    return [
        text.encode(),
        text.replace("\n", "\r\n").encode("utf-8-sig"),
        re.sub(r"folder/(\S+?),", r'"a ""b"", c/\1",', text).encode(),
    ]


def studies() -> list[bytes]:
    plain = STUDY.model_dump(mode="json")
    short = {"name": "small", "classes": ["benign", "PTC"], "federation": {"sites": ["a", "b"], "rounds": 3}}
    return [yaml.safe_dump(data, default_flow_style=flow).encode() for data in (plain, short) for flow in (False, True)]


def sites() -> list[bytes]:
    data = {"site": "a", "manifest": "manifest.csv", "images": "images", "state": "state", "policy": {"minimum_cases": 3}}
    return [yaml.safe_dump(data, default_flow_style=flow).encode() for flow in (False, True)]


def photos() -> list[bytes]:
    grey = Image.fromarray((np.arange(48)[:, None] * 5 + np.arange(64)[None, :]).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    results = []
    for picture, kind, options in (
        *((grey.convert(mode), "PNG", {}) for mode in ("L", "RGB", "RGBA", "1", "I;16")),
        (grey.quantize(16), "PNG", {"exif": exif}),
        *(
            (grey.convert(mode), "JPEG", {"progressive": progressive, "exif": exif})
            for mode in ("L", "RGB")
            for progressive in (False, True)
        ),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        results.append(file.getvalue())
    return results


def objects() -> list[bytes]:
    """DICOM files of other makers in every transfer syntax, and one with two regions."""
    results = [Path(str(get_testdata_file(name, download=False))).read_bytes() for name in DICOM_FILES]
    dataset = pydicom.dcmread(io.BytesIO(results[0]))
    dataset.SequenceOfUltrasoundRegions = [Dataset(), Dataset()]
    for number, region in enumerate(dataset.SequenceOfUltrasoundRegions):
        region.RegionSpatialFormat, region.RegionDataType = 1, 1 + number
        region.RegionLocationMinX0 = region.RegionLocationMinY0 = number
        region.RegionLocationMaxX1 = region.RegionLocationMaxY1 = 2
        region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
        region.PhysicalDeltaX = region.PhysicalDeltaY = 0.01
    file = io.BytesIO()
    dataset.save_as(file)
    return [*results, file.getvalue()]


TARGETS = {
    "manifest": Target(lambda path: read_manifest(path, STUDY), ".csv", TEXT, manifests),
    "study": Target(read_study, ".yaml", TEXT, studies),
    "site": Target(read_site, ".yaml", TEXT, sites),
    "photo": Target(read_image, ".png", BINARY, photos),
    "dicom": Target(read_image, ".dcm", (*BINARY, change_element), objects),
}


def inputs(target: Target, num_inputs: int, seed: int) -> Iterator[bytes]:
    rng, seeds = random.Random(seed), target.seeds()
    for number in range(num_inputs):
        data = seeds[number % len(seeds)]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = rng.choice(target.changes)(rng, data) if data else data
        yield data


def fuzz(target: Target, num_inputs: int, folder: Path, seed: int) -> int:
    """Reads `num_inputs` changed files; how many of them were refused."""
    path, num_refused = folder / f"input{target.ending}", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, data in enumerate(inputs(target, num_inputs, seed)):
        path.write_bytes(data)
        start = time.process_time()
        try:
            target.read(path)
        except CsasnError:
            num_refused += 1
        took = time.process_time() - start
        assert took < SECONDS, f"input {number} of seed {seed} took {took:.1f} s"
    growth_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert growth_mib < GROWTH_MIB
    return num_refused


@pytest.mark.parametrize("name", TARGETS)
def test_no_damage_escapes_as_a_foreign_error(name: str, tmp_path: Path) -> None:
    num_refused = fuzz(TARGETS[name], QUICK, tmp_path, seed=1)
    assert 0 < num_refused <= QUICK


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_no_damage_escapes_as_a_foreign_error_in_twenty_thousand_files(name: str, tmp_path: Path) -> None:
    assert 0 < fuzz(TARGETS[name], SLOW, tmp_path, seed=2) <= SLOW


@pytest.mark.parametrize("name", TARGETS)
def test_the_files_that_are_damaged_can_be_read_undamaged(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    path = tmp_path / f"input{target.ending}"
    for data in target.seeds():
        path.write_bytes(data)
        target.read(path)
