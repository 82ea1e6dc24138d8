"""DICOM objects in many clothes, and what a viewer shows of each: python tests/pictures/matrix.py prints the counts.

An object is a set of `Clothes`. GDCM reads what is stored (`gdcm_reader.py`, in a process of its own); what a viewer makes of that,
rescale, window, inversion and colours, is written here a second time, from the words of the standard. An object whose label lies
has a truthful twin, whose pixels are the expected ones.
"""

import io
import itertools
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from csasn.errors import DataError
from csasn.pictures.images import read_image

HEIGHT, WIDTH = 20, 24
CLOSE = 2  # grey levels
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
PLAIN, FALLING, RISING = (1.0, 0.0), (-2.0, 700.0), (0.5, -100.0)
Window = tuple[str, float, float]  # function, centre and width as shares of the range


@dataclass(frozen=True)
class Clothes:
    """How one picture is stored and labelled; `values` says of how many bits it is, `coding` what its colours are inside."""

    syntax: str = ExplicitVRLittleEndian
    label: str = "MONOCHROME2"
    allocated: int = 8
    stored: int = 8
    values: int = 8
    signed: bool = False
    planar: int = 0
    coding: str = ""
    rescale: tuple[float, float] = PLAIN
    window: Window | None = None
    lut: bool = False
    overlay: bool = False
    high: int | None = None
    inverse: bool = False
    truth: "Clothes | None" = None

    @property
    def name(self) -> str:
        """A name of its own, of letters that files may have."""
        parts = [str(value) for key, value in vars(self).items() if key != "truth"]
        return "_".join(parts).replace(" ", "").replace("(", "").replace(")", "").replace(",", "-").replace("'", "")


def wardrobe() -> list[Clothes]:
    """Every object once, by its name."""
    every = (*grey_objects(), *coded_grey_objects(), *colour_objects(), *coded_colour_objects())
    return list({one.name: one for one in every}.values())


def grey_objects() -> Iterator[Clothes]:
    depths = ((8, 8, 8), (16, 8, 8), (16, 10, 10), (16, 12, 12), (16, 16, 16), (16, 16, 12))
    windows = (None, ("LINEAR", 0.4, 0.5), ("LINEAR_EXACT", 0.6, 0.7), ("SIGMOID", 0.5, 0.4))
    for syntax, (allocated, stored, values), label in itertools.product(NATIVE, depths, ("MONOCHROME1", "MONOCHROME2")):
        yield Clothes(syntax, label, allocated, stored, values)
    for (allocated, stored, values), label, rescale, window in itertools.product(
        depths, ("MONOCHROME1", "MONOCHROME2"), (PLAIN, FALLING, RISING), windows
    ):
        yield Clothes(ExplicitVRLittleEndian, label, allocated, stored, values, rescale=rescale, window=window)
    for (allocated, stored, values), label in itertools.product(depths[:-1], ("MONOCHROME1", "MONOCHROME2")):
        one = Clothes(label=label, allocated=allocated, stored=stored, values=values)
        yield from (replace(one, lut=True), replace(one, lut=True, rescale=RISING), replace(one, inverse=True))
        yield from (replace(one, signed=True), replace(one, signed=True, window=windows[1]))
        yield replace(one, signed=True, window=windows[2], rescale=FALLING)
    for allocated, stored in ((16, 8), (16, 10), (16, 12)):
        one = Clothes(allocated=allocated, stored=stored, values=stored)
        yield from (replace(one, overlay=True), replace(one, syntax=ExplicitVRBigEndian, overlay=True))
        yield replace(one, high=15, truth=one)  # GDCM 3.2 does not shift these; dcmtk does


def coded_grey_objects() -> Iterator[Clothes]:
    depths = ((8, 8), (16, 10), (16, 12), (16, 16))
    lossless = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000)
    for syntax, (allocated, bits), label in itertools.product(lossless, depths, ("MONOCHROME1", "MONOCHROME2")):
        one = Clothes(syntax, label, allocated, bits, bits, coding="grey")
        yield from (one, replace(one, window=("LINEAR", 0.4, 0.5), rescale=RISING))
    for label in ("MONOCHROME1", "MONOCHROME2"):
        baseline = Clothes(JPEGBaseline8Bit, label, coding="grey")
        twelve = Clothes(JPEGExtended12Bit, label, 16, 12, 12, coding="grey")
        for one in (baseline, twelve):
            yield from (one, replace(one, window=("LINEAR", 0.4, 0.5)), replace(one, rescale=FALLING), replace(one, inverse=True))


def colour_objects() -> Iterator[Clothes]:
    for syntax, label, planar in itertools.product(NATIVE, ("RGB", "YBR_FULL"), (0, 1)):
        yield Clothes(syntax, label, planar=planar)
    for syntax in NATIVE:
        yield Clothes(syntax, "YBR_FULL_422")
        yield Clothes(syntax, "PALETTE COLOR")
    for label, planar in itertools.product(("YBR_PARTIAL_422", "YBR_ICT", "HSV"), (0, 1)):
        yield Clothes(label=label, planar=planar)


def coded_colour_objects() -> Iterator[Clothes]:
    for label, planar in itertools.product(("RGB", "YBR_FULL"), (0, 1)):
        yield Clothes(RLELossless, label, planar=planar, coding=label)
        for syntax in (JPEGLosslessSV1, JPEGLSLossless):
            yield Clothes(syntax, label, planar=planar, coding=label)
    yield Clothes(RLELossless, "PALETTE COLOR", coding="grey")
    for coding in ("ycc444", "ycc422", "ycc420", "ycc-bare"):
        true = Clothes(JPEGBaseline8Bit, "YBR_FULL_422", coding=coding)
        yield from (replace(true, label=label, planar=planar, truth=true)
                    for label, planar in itertools.product(("YBR_FULL", "YBR_FULL_422", "RGB"), (0, 1)))  # fmt: skip
    for coding in ("rgb-adobe", "rgb-names"):
        true = Clothes(JPEGBaseline8Bit, "RGB", coding=coding)
        yield from (replace(true, label=label, planar=planar, truth=true)
                    for label, planar in itertools.product(("YBR_FULL", "YBR_FULL_422", "RGB"), (0, 1)))  # fmt: skip
    for syntax, coding in itertools.product((JPEG2000Lossless, JPEG2000), ("mct", "rgb", "ybr")):
        label = {"mct": "YBR_RCT" if syntax == JPEG2000Lossless else "YBR_ICT", "rgb": "RGB", "ybr": "YBR_FULL"}[coding]
        true = Clothes(syntax, label, coding=coding)
        others = {"mct": ("RGB", "YBR_FULL", "YBR_FULL_422"), "rgb": ("YBR_RCT", "YBR_ICT"), "ybr": ("YBR_FULL_422",)}[coding]
        yield from (replace(true, label=other, planar=planar, truth=true)
                    for other, planar in itertools.product((label, *others), (0, 1)))  # fmt: skip


# Making


def grey_picture(bits: int) -> np.ndarray:
    """Values (H, W) from 0 to the largest of `bits` bits."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = 0.5 + 0.5 * np.sin(x / 5) * np.cos(y / 4)
    values = np.rint((smooth - smooth.min()) / np.ptp(smooth) * ((1 << bits) - 1))
    return values.astype(np.uint8 if bits <= 8 else np.uint16)


def colour_picture() -> np.ndarray:
    """(H, W, 3), smooth, so that what colours lose by subsampling stays small."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = (120 + 90 * np.sin(x / 9), 110 + 80 * np.cos(y / 8), 90 + 60 * np.sin((x + y) / 11))
    return np.stack(planes, -1).astype(np.uint8)


def ybr_of(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.2990 * red + 0.5870 * green + 0.1140 * blue
    planes = (y, -0.1687 * red - 0.3313 * green + 0.5 * blue + 128, 0.5 * red - 0.4187 * green - 0.0813 * blue + 128)
    return np.clip(np.rint(np.stack(planes, -1)), 0, 255).astype(np.uint8)


def make(one: Clothes) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.3"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = one.syntax
    colour = not one.label.startswith(("MONO", "PALETTE"))
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = HEIGHT, WIDTH, 3 if colour else 1
    dataset.PhotometricInterpretation = one.label
    dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation = one.allocated, one.stored, int(one.signed)
    dataset.HighBit = one.stored - 1 if one.high is None else one.high
    if colour:
        dataset.PlanarConfiguration = one.planar
    if one.rescale != PLAIN:
        dataset.RescaleSlope, dataset.RescaleIntercept = one.rescale
    if one.window:
        function, *_ = one.window
        dataset.WindowCenter, dataset.WindowWidth = window_of(one)
        dataset.VOILUTFunction = function
    if one.lut:
        dataset.VOILUTSequence = [lut_of(one)]
    if one.inverse:
        dataset.PresentationLUTShape = "INVERSE"
    if one.label.startswith("PALETTE"):
        table = np.roll(np.arange(256), 40)
        for number, name in enumerate(("Red", "Green", "Blue")):
            setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(dataset, f"{name}PaletteColorLookupTableData", (table[:: 1 - 2 * (number % 2)] * 257).astype("<u2").tobytes())
    coded(dataset, one) if one.coding else native(dataset, one)
    return dataset


def stored_values(one: Clothes) -> np.ndarray:
    """The values as they stand in the element: unsigned patterns of `allocated` bits."""
    values = grey_picture(one.values).astype(np.int64)
    if one.signed:
        values = (values - (1 << (one.values - 1))) & ((1 << one.stored) - 1)
    if one.high is not None:
        values <<= one.high + 1 - one.stored
    if one.overlay:
        values |= (np.indices((HEIGHT, WIDTH)).sum(0) % 3 == 0).astype(np.int64) << one.stored
    return values.astype(f"u{one.allocated // 8}")


def native(dataset: Dataset, one: Clothes) -> None:
    colours = colour_picture()
    if one.label.startswith(("MONO", "PALETTE")):
        values = stored_values(one)
    elif one.label == "YBR_FULL_422":
        ybr = ybr_of(colours)
        values = np.concatenate([ybr[:, ::2, :1], ybr[:, 1::2, :1], ybr[:, ::2, 1:]], -1)
    else:
        values = colours if one.label == "RGB" else ybr_of(colours)
        values = values.transpose(2, 0, 1) if one.planar else values
    big = one.syntax == ExplicitVRBigEndian
    dataset.PixelData = np.ascontiguousarray(values).astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OW" if one.allocated > 8 else "OB"


def coded(dataset: Dataset, one: Clothes) -> None:
    if one.coding == "grey":
        values = stored_values(one)
    else:
        values = ybr_of(colour_picture()) if one.coding in ("YBR_FULL", "ybr") else colour_picture()
    dataset.PixelData = pydicom.encaps.encapsulate([encode(values, one)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"


def encode(values: np.ndarray, one: Clothes) -> bytes:
    if one.syntax == RLELossless:
        return run_lengths(values)
    if one.syntax in (JPEGLSLossless, JPEGLSNearLossless):
        return bytes(imagecodecs.jpegls_encode(values, level=int(one.syntax == JPEGLSNearLossless)))
    if one.syntax in (JPEG2000Lossless, JPEG2000):
        reversible = one.syntax == JPEG2000Lossless
        level = {} if reversible else {"level": 60}
        options = {"codecformat": "j2k", "mct": one.coding == "mct", "reversible": reversible, "bitspersample": one.stored}
        return bytes(imagecodecs.jpeg2k_encode(values, **options, **level))
    if one.syntax == JPEGLosslessSV1:
        space = "GRAYSCALE" if values.ndim == 2 else "RGB"
        options = {"lossless": True, "predictor": 1, "bitspersample": one.stored, "colorspace": space, "outcolorspace": space}
        return numbered(without(bytes(imagecodecs.jpeg8_encode(values, **options)), 0xEE))
    if one.syntax == JPEGExtended12Bit:
        return bytes(imagecodecs.jpeg8_encode(values, level=98, bitspersample=12))
    file = io.BytesIO()
    options = {"subsampling": {"ycc422": 1, "ycc420": 2}.get(one.coding, 0), "keep_rgb": one.coding.startswith("rgb")}
    Image.fromarray(values).save(file, "JPEG", quality=97, **options)
    code = file.getvalue()
    return without(code, 0xE0) if one.coding == "ycc-bare" else without(code, 0xEE) if one.coding == "rgb-names" else code


def without(code: bytes, marker: int) -> bytes:
    """A JPEG without the segments of a marker."""
    place = 2
    while code[place + 1] != 0xDA:
        length = 2 + int.from_bytes(code[place + 2 : place + 4], "big")
        if code[place + 1] == marker:
            code = code[:place] + code[place + length :]
        else:
            place += length
    return code


def numbered(code: bytes) -> bytes:
    """A JPEG whose components are called 1, 2, 3 in place of R, G, B: of a lossless one, that leaves colours to the label."""
    for marker, step in ((b"\xff\xc3", 3), (b"\xff\xda", 2)):
        place = code.index(marker) + (9 if step == 3 else 4)
        count = code[place]
        names = {place + 1 + step * number: number + 1 for number in range(count)}
        code = bytes(names.get(at, byte) for at, byte in enumerate(code))
    return code


def run_lengths(values: np.ndarray) -> bytes:
    """RLE of one frame (PS3.5 annex G), its bytes from the highest on."""
    planes = [values] if values.ndim == 2 else list(np.moveaxis(values, -1, 0))
    item = values.itemsize
    bytes_of = [np.ascontiguousarray(plane).astype(f">u{item}").view(np.uint8).reshape(-1, item) for plane in planes]
    segments = [imagecodecs.packbits_encode(plane[:, byte].tobytes()) for plane in bytes_of for byte in range(item)]
    segments = [segment + b"\0" * (len(segment) % 2) for segment in segments]
    starts = list(itertools.accumulate((len(segment) for segment in segments[:-1]), initial=64))
    header = np.array([len(segments), *starts, *[0] * (15 - len(starts))], "<u4").tobytes()
    return header + b"".join(segments)


def range_of(one: Clothes) -> tuple[float, float]:
    """Of the values after rescale."""
    low, high = (-(1 << (one.values - 1)), (1 << (one.values - 1)) - 1) if one.signed else (0, (1 << one.values) - 1)
    ends = [value * one.rescale[0] + one.rescale[1] for value in (low, high)]
    return min(ends), max(ends)


def window_of(one: Clothes) -> tuple[float, float]:
    assert one.window
    low, high = range_of(one)
    return round(low + one.window[1] * (high - low), 1), round(one.window[2] * (high - low), 1)


LUT_BITS = 12


def lut_values() -> np.ndarray:
    """A table that falls, in steps."""
    return np.rint(((1 << LUT_BITS) - 1) * (1 - np.linspace(0, 1, 200)) ** 1.5).astype(np.uint16)


def lut_of(one: Clothes) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [200, 0, LUT_BITS]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = lut_values().astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


# Showing, from the words of the standard


def shown(one: Clothes, values: np.ndarray, label: str) -> np.ndarray:
    """0..255 (H, W), as float, of samples that GDCM read."""
    values = values.astype(float)
    if label.startswith("MONO"):
        return shown_grey(one, values)
    if values.ndim == 1:  # pairs of YBR_FULL_422
        quads = values.reshape(-1, 4)
        values = np.stack([quads[:, [0, 1]], quads[:, [2, 2]], quads[:, [3, 3]]], -1).reshape(HEIGHT, WIDTH, 3)
    if label.startswith("YBR_FULL"):
        y, blue, red = np.moveaxis(values, -1, 0)
        planes = (y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128), y + 1.772 * (blue - 128))
        values = np.clip(np.stack(planes, -1), 0, 255)
    if values.max() > 255:
        values = values / 257
    return values @ np.array([0.299, 0.587, 0.114])


def shown_grey(one: Clothes, values: np.ndarray) -> np.ndarray:
    slope, intercept = one.rescale
    levels = values * slope + intercept
    if one.lut:
        table = lut_values()
        result = np.vectorize(lambda level: 255 * int(table[min(max(round(level), 0), 199)]) / ((1 << LUT_BITS) - 1))(levels)
    elif one.window:
        result = np.vectorize(lambda level: windowed(one.window[0], level, *window_of(one)))(levels)
    else:
        low, high = range_of(one)
        result = np.clip(255 * (levels - low) / (high - low), 0, 255)  # lossy codes go beyond
    return 255 - result if one.label == "MONOCHROME1" or one.inverse else result


def windowed(function: str, level: float, centre: float, width: float) -> float:
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (level - centre) / width))
    if function == "LINEAR":
        if level <= centre - 0.5 - (width - 1) / 2:
            return 0
        if level > centre - 0.5 + (width - 1) / 2:
            return 255
        return ((level - (centre - 0.5)) / (width - 1) + 0.5) * 255
    if level <= centre - width / 2:
        return 0
    return 255 if level > centre + width / 2 else ((level - centre) / width + 0.5) * 255


# Comparing


@dataclass(frozen=True)
class Verdict:
    """`outcome` is agrees, refused, disagrees or alone (GDCM does not read it); `detail` says by how much, or why."""

    clothes: Clothes
    outcome: str
    detail: str


def compare(folder: Path, objects: list[Clothes]) -> list[Verdict]:
    """Writes the objects and their twins, has both readers read them, and compares."""
    every = {one.name: one for one in (*objects, *(one.truth for one in objects if one.truth))}
    for one in every.values():
        make(one).save_as(folder / f"{one.name}.dcm", enforce_file_format=True)
    script = Path(__file__).with_name("gdcm_reader.py")
    while len(list(folder.glob("*.begun"))) < len(every):  # a file that ends GDCM's process is passed over by the next one
        subprocess.run([sys.executable, "-P", script, folder], check=False, capture_output=True, timeout=120)
    return [judge(folder, one) for one in objects]


def judge(folder: Path, one: Clothes) -> Verdict:
    try:
        ours = read_image(folder / f"{one.name}.dcm").pixels_HW.astype(float)
    except DataError as error:
        return Verdict(one, "refused", error.message)
    true = one.truth or one
    theirs = folder / f"{true.name}.npz"
    if not theirs.exists():
        return Verdict(one, "alone", "")
    with np.load(theirs) as found:
        label = str(found["label"])
        expected = shown(true, found["values"], "RGB" if true.coding in ("rgb", "mct", "rgb-adobe", "rgb-names") else label)
    difference = np.abs(ours - expected).max() if ours.shape == expected.shape else np.inf
    return Verdict(one, "agrees" if difference <= CLOSE + 0.5 else "disagrees", f"{difference:.2f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        verdicts = compare(Path(folder), wardrobe())
    counts = Counter(verdict.outcome for verdict in verdicts)
    for verdict in verdicts:
        if verdict.outcome in ("disagrees", "alone"):
            print(verdict.outcome, verdict.detail, verdict.clothes.name)
    for message, count in Counter(verdict.detail for verdict in verdicts if verdict.outcome == "refused").most_common():
        print(f"refused {count}: {message}")
    print(f"{len(verdicts)} objects:", ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
