"""Damaged and hostile files: every reader of foreign files answers with a result or a `CsasnError`, in bounded time and memory.

Inputs are read in batches by a process of their own, so that a decoder that hangs or dies costs a batch and not the tests. The
fault names reader, seed and number of the input; `PYTHONPATH=tests python tests/pictures/test_fuzz.py READER SEED COUNT FOLDER`
reads a batch again, and leaves the input that stopped it in FOLDER. CSASN_FUZZ_BATCHES sets how many thousand inputs the slow run
reads.
"""

import ctypes
import faulthandler
import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import yaml
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from csasn.data.manifest import Manifest, read_manifest
from csasn.errors import CsasnError
from csasn.pictures.images import Picture, read_image
from csasn.site import Site, read_site
from csasn.study import Federation, Study, Task, read_study
from pictures.matrix import make, wardrobe

SECONDS, GROWTH_MIB = 20.0, 1024  # for one input; a shared machine may stop a process for a moment
ADDRESS_SPACE_BYTES, BATCH_SECONDS = 6 << 30, 600  # of a process
MAX_MESSAGE = 4000  # characters; up to ten faults are listed
QUICK, BATCH = 600, 1000  # inputs of the quick run, inputs a batch
BATCHES = int(os.environ.get("CSASN_FUZZ_BATCHES", "20"))  # of the slow run
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
    result: type = object
    seconds: float = SECONDS


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


def exports() -> list[bytes]:
    """What scanners and viewers export besides: bitmaps, TIFF in each coding and with pages, WebP, JPEG 2000, deep PNG."""
    grey = Image.fromarray((np.arange(48)[:, None] * 5 + np.arange(64)[None, :]).astype(np.uint8))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 16)
    results = []
    for picture, kind, options in (
        *((grey.convert(mode), "BMP", {}) for mode in ("L", "RGB", "RGBA", "1", "P")),
        *((grey, "TIFF", {"compression": code}) for code in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma")),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (grey.convert("RGBA"), "TIFF", {"save_all": True, "append_images": [grey, deep]}),
        (deep, "TIFF", {"big_tiff": True}),
        *((grey.convert(mode), "WEBP", {"lossless": exact}) for mode in ("RGB", "RGBA") for exact in (False, True)),
        (grey, "WEBP", {"save_all": True, "append_images": [grey.rotate(180)] * 3, "lossless": True}),
        *((grey.convert(mode), "JPEG2000", {"no_jp2": bare}) for mode in ("L", "RGB", "RGBA") for bare in (False, True)),
        (deep, "JPEG2000", {}),
    ):
        file = io.BytesIO()
        picture.save(file, kind, **options)
        results.append(file.getvalue())
    colours = np.repeat(np.asarray(deep)[..., None], 4, axis=2)
    results += [bytes(imagecodecs.png_encode(np.ascontiguousarray(colours[..., :num]))) for num in (2, 3, 4)]
    results += [bytes(imagecodecs.tiff_encode(np.ascontiguousarray(colours[..., :3]), photometric="rgb"))] * 3
    return [*results, bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(colours[..., :3]), codecformat="jp2"))]


def coded_objects() -> list[bytes]:
    """Small DICOM objects in each coding, with windows and lookup tables."""
    rich = [one for one in wardrobe() if one.coding or one.lut or one.window]
    results = []
    for one in rich[::3]:
        file = io.BytesIO()
        make(one).save_as(file, enforce_file_format=True)
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


def fail_at_the_fourth(fail: Callable[[], object], seconds: float = SECONDS) -> Target:
    """A reader that fails at input 3."""
    numbers = iter(range(5))
    return Target(lambda path: fail() if next(numbers) == 3 else None, ".txt", TEXT, manifests, seconds=seconds)


def refuse(cause: Callable[[], object], message: str = "as it should be") -> None:
    try:
        cause()
    except MemoryError:
        raise CsasnError(message, "try again") from None
    raise CsasnError(message, "try again")


READERS = {
    "manifest": Target(lambda path: read_manifest(path, STUDY), ".csv", TEXT, manifests, Manifest),
    "study": Target(read_study, ".yaml", TEXT, studies, Study),
    "site": Target(read_site, ".yaml", TEXT, sites, Site),
    "photo": Target(read_image, ".png", BINARY, photos, Picture),
    "export": Target(read_image, ".png", BINARY, exports, Picture),
    "coded dicom": Target(read_image, ".dcm", (*BINARY, change_element), coded_objects, Picture),
    "dicom": Target(read_image, ".dcm", (*BINARY, change_element), objects, Picture),
}
FAILURES = {
    "hangs": fail_at_the_fourth(lambda: time.sleep(60), seconds=0.2),
    "hangs in native code": fail_at_the_fourth(lambda: re.match(r"(a|a)*b", "a" * 60), seconds=0.2),
    "crashes": fail_at_the_fourth(lambda: ctypes.string_at(0)),
    "fills memory": fail_at_the_fourth(lambda: len(bytes([1]) * (GROWTH_MIB + 100 << 20))),
    "asks for all memory": fail_at_the_fourth(lambda: refuse(lambda: bytes(ADDRESS_SPACE_BYTES))),
    "raises": fail_at_the_fourth(lambda: 1 // 0),
    "shows what is in the file": fail_at_the_fourth(lambda: refuse(lambda: None, "\x1b[31m")),
}
TARGETS = READERS | FAILURES


def inputs(target: Target, num_inputs: int, seed: int) -> Iterator[bytes]:
    rng, seeds = random.Random(seed), target.seeds()
    for number in range(num_inputs):
        data = seeds[number % len(seeds)]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = rng.choice(target.changes)(rng, data) if data else data
        yield data


def read_batch(name: str, seed: int, num_inputs: int, folder: Path) -> None:
    """Reads changed files and prints a `Batch`; the number of the one being read stands in the file `number`.

    The process ends where an input raises anything but a `CsasnError`, takes too long or too much memory, or crashes a decoder.
    """
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)  # then the alarm ends the process, native code or not
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    target, path, before_mib = TARGETS[name], folder / f"input{TARGETS[name].ending}", peak_mib()
    num_refused, slowest_s = 0, 0.0
    with (folder / "number").open("wb", buffering=0) as place:
        for number, data in enumerate(inputs(target, num_inputs, seed)):
            os.pwrite(place.fileno(), b"%d" % number, 0)
            path.write_bytes(data)
            signal.setitimer(signal.ITIMER_REAL, target.seconds)
            start = time.perf_counter()
            try:
                target.read(path)
            except CsasnError as error:
                num_refused += 1
                check_refusal(error)
            slowest_s = max(slowest_s, time.perf_counter() - start)
            growth_mib = peak_mib() - before_mib
            assert growth_mib < GROWTH_MIB, f"memory grew by {growth_mib:.0f} MiB"
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(asdict(Batch(num_refused, slowest_s, peak_mib()))))


def peak_mib() -> float:
    """Most memory that this process ever had; `ru_maxrss` begins with that of its parent."""
    return int(re.search(rb"VmHWM:\s+(\d+)", Path("/proc/self/status").read_bytes())[1]) / 1024  # type: ignore[index]


def check_refusal(error: CsasnError) -> None:
    """One line of bounded length that a terminal can show, with a hint, and made for want of sense, not of memory."""
    assert error.message.isprintable(), "the message is not one printable line"
    assert error.hint.isprintable()
    assert error.hint
    assert len(error.message) <= MAX_MESSAGE, f"the message has {len(error.message)} characters"
    cause: BaseException | None = error
    while cause := cause.__context__:
        assert not isinstance(cause, MemoryError), "memory ran out"


@dataclass(frozen=True)
class Batch:
    """How a batch of inputs was read."""

    num_refused: int
    slowest_s: float
    peak_mib: float


def fuzz(name: str, num_inputs: int, folder: Path, seed: int) -> Batch:
    """Reads `num_inputs` changed files in another process.

    Raises:
        AssertionError: one of them stopped it.
    """
    command = [sys.executable, "-P", __file__, name, str(seed), str(num_inputs), str(folder)]
    places = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    surroundings = {**os.environ, "PYTHONPATH": places}
    try:
        done = subprocess.run(command, capture_output=True, timeout=BATCH_SECONDS, text=True, check=False, env=surroundings)
        status, output, trace = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        status, output, trace = -signal.SIGKILL, "", f"more than {BATCH_SECONDS} s"
    number = (folder / "number").read_text() if (folder / "number").exists() else "none"
    assert status == 0, f"reader {name}, seed {seed}, input {number}: status {status}\n{trace[-4000:]}"
    return Batch(**json.loads(output))


@pytest.mark.parametrize("name", READERS)
def test_no_damage_escapes_as_a_foreign_error(name: str, tmp_path: Path) -> None:
    assert 0 < fuzz(name, QUICK, tmp_path, seed=1).num_refused < QUICK


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_damage_escapes_as_a_foreign_error_in_twenty_thousand_files(name: str, tmp_path: Path) -> None:
    start, batches, faults = time.perf_counter(), [], []
    for seed in range(2, 2 + BATCHES):
        try:
            batches.append(fuzz(name, BATCH, tmp_path, seed))
        except AssertionError as fault:
            faults.append(str(fault))
    took_s = time.perf_counter() - start
    num_refused, slowest_s = sum(batch.num_refused for batch in batches), max(batch.slowest_s for batch in batches)
    print(f"{name}: {len(batches)} x {BATCH} inputs in {took_s:.0f} s, {num_refused} refused, slowest {slowest_s:.2f} s, "
          f"peak {max(batch.peak_mib for batch in batches):.0f} MiB")  # fmt: skip
    assert not faults, "\n".join(faults)
    assert 0 < num_refused < BATCHES * BATCH


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("hangs", f"status {-signal.SIGALRM}"),
        ("hangs in native code", f"status {-signal.SIGALRM}"),
        ("crashes", f"status {-signal.SIGSEGV}"),
        ("fills memory", "memory grew by"),
        ("asks for all memory", "memory ran out"),
        ("raises", "ZeroDivisionError"),
        ("shows what is in the file", "not one printable line"),
    ],
)
def test_a_reader_that_fails_is_told_with_seed_and_input(name: str, shown: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=rf"reader {name}, seed 7, input 3: status ") as caught:
        fuzz(name, 5, tmp_path, seed=7)
    assert shown in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_the_files_that_are_damaged_can_be_read_undamaged(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    path = tmp_path / f"input{target.ending}"
    for data in target.seeds():
        path.write_bytes(data)
        assert isinstance(target.read(path), target.result)


if __name__ == "__main__":
    read_batch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
