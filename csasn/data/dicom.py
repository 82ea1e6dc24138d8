"""One frame of a DICOM object as 8-bit grey, cropped to its B-mode view.

Sources: DICOM PS3.3 C.7.6.3 (pixels) and C.8.5.5 (ultrasound regions), PS3.5 annex A (transfer syntaxes). pydicom reads, and
decodes RLE; Pillow decodes JPEG of 8 bits, imagecodecs all other kinds. Only the elements listed here are read: a patient's name
never reaches memory.

Deflated objects are inflated up to a limit, and a compressed frame goes to a decoder only if its own header claims the size that
the object claims. That bounds memory against damaged files; decoders are native code and are no sandbox against malicious ones.

Axes: H rows, W columns.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from csasn.data import codecs
from csasn.data.images import CONVERT, UNREADABLE, Picture, require_bounds, require_frame, to_uint8
from csasn.errors import DataError

MAX_INFLATED_BYTES = 256 << 20
MAX_HEADER_READS = 100_000  # about 3 an element; a real header has a few thousand elements
MAX_DEVICE_CHARS = 64  # as DICOM allows
MAX_FILE_HEADER_BYTES = 256 << 10  # a real one has a few hundred
MAX_VALUE_BYTES = 256 << 10  # of one element of the header; a palette has half of it
CLEARLY_LARGER = 1.5  # of two views by area: the larger one is the picture, the other one a detail
SMALL_FRAME_PIXELS, MAX_COMPRESSION = 1 << 22, 1000  # a larger frame with more pixels a byte is a bomb, not a picture
# the same decoder everywhere, so that all sites see the same pixels; pydicom would take whichever is installed, such
# as GDCM, which a damaged frame can make end the process
_DECODERS = {
    **dict.fromkeys(codecs.DECODER_DEPENDENCIES, codecs.NAME),
    JPEGBaseline8Bit: "pillow",
    RLELossless: "pydicom",
}
_DAMAGED = (*UNREADABLE, InvalidDicomError, BytesLengthException)
_UNCOMPRESSED = "export it uncompressed (Explicit VR Little Endian)"
_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image (retired)",
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image (retired)",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame Image",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture",
}
_PLAIN = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422")
_OF_JPEG_2000 = ("YBR_ICT", "YBR_RCT")  # the decoder undoes these; elsewhere the label is wrong and the colours are anyone's guess
_COLOURS = ("Red", "Green", "Blue")
_ELEMENTS = [
    *("SOPClassUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored"),
    *("PhotometricInterpretation", "SequenceOfUltrasoundRegions", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("Manufacturer", "ManufacturerModelName"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]
_TISSUE, _SPACE_2D, _CENTIMETRE = 1, 1, 3
_NO_B_MODE = {(1, 2): "colour Doppler", 2: "M-mode", 3: "spectral Doppler"}  # by (format, data type) or format
_JP2 = b"\0\0\0\x0cjP  "
_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
_PLAIN_START = bytes(128) + b"DICM" + struct.pack("<HH2sH20s", 2, 0x10, b"UI", 20, ExplicitVRLittleEndian.encode())


def read_dicom(file: BinaryIO, frame: int | None, marked: bool) -> Picture:
    """One frame of a DICOM file; `marked` tells whether it has the preamble that files, unlike bare objects, begin with.

    Raises:
        DataError: it is damaged, of a kind that is not supported, or shows no single B-mode view.
    """
    try:
        if marked:
            syntax = _syntax(file)
            _require_decoder(syntax)
            file = _inflate(file) if syntax == DeflatedExplicitVRLittleEndian else file
        header = pydicom.dcmread(
            _Counted(file), MAX_VALUE_BYTES, stop_before_pixels=True, force=not marked, specific_tags=_ELEMENTS
        )
        if any(isinstance(element, RawDataElement) and element.length > MAX_VALUE_BYTES for element in header.values()):
            raise ValueError
        _require_storage(header, marked)
        num_frames = int(header.get("NumberOfFrames") or 1)
        if not (header.get("Rows") and header.get("Columns") and num_frames > 0):
            raise DataError("the image is a DICOM file without pixels", "export the image, not a report")
        require_bounds(int(header.Rows), int(header.Columns), num_frames, _pixel_bytes(header))
        require_frame(frame, num_frames)
        index = (frame or (num_frames + 1) // 2) - 1
        syntax = UID(header.file_meta.get("TransferSyntaxUID") or _bare_syntax(header))
        picture = _crop(_grey(_decode(file, header, index, syntax), header, syntax), header)
        return replace(picture, device=_device(header))
    except _DAMAGED:
        raise DataError("the image is a damaged DICOM file", "export it again") from None


def _syntax(file: BinaryIO) -> UID:
    """Transfer syntax in the file header, which comes before any limit of pydicom's own and may not be endless."""
    file.seek(132)
    start = io.BytesIO(file.read(MAX_FILE_HEADER_BYTES))
    file.seek(0)
    meta = pydicom.filereader._read_file_meta_info(start)  # the public one opens a path, and reads to whatever end
    if start.tell() == MAX_FILE_HEADER_BYTES:
        raise ValueError
    return UID(meta["TransferSyntaxUID"].value)


class _Counted:
    """A file that refuses to be read in too many small pieces: a header of a million elements would take minutes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._num_reads = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As of any file.

        Raises:
            ValueError: after MAX_HEADER_READS times.
        """
        self._num_reads += 1
        if self._num_reads > MAX_HEADER_READS:
            raise ValueError
        return self._file.read(size)


def _require_decoder(syntax: UID) -> None:
    """Refuses what no decoder is installed for: video, and private syntaxes."""
    try:
        if get_decoder(syntax).is_available:
            return
    except NotImplementedError:
        if syntax == DeflatedExplicitVRLittleEndian:
            return
    name = syntax.name if syntax.name != syntax else "an unknown transfer syntax"
    raise DataError(f"the image is DICOM in {name}, which cannot be read", _UNCOMPRESSED)


def _inflate(file: BinaryIO) -> BinaryIO:
    """A deflated file as it would be in Explicit VR Little Endian, its file header apart."""
    start = file.read(144)
    if start[132:140] != _GROUP_LENGTH:
        raise DataError("the image is a damaged DICOM file", "export it again")
    file.seek(144 + int.from_bytes(start[140:], "little"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = io.BytesIO()
    plain.write(_PLAIN_START)
    most = MAX_INFLATED_BYTES + len(_PLAIN_START)
    while not inflater.eof and (piece := file.read(1 << 20)):
        plain.write(inflater.decompress(piece, most - plain.tell() + 1))
        if plain.tell() > most:
            raise DataError(f"the image is a deflated DICOM file of more than {MAX_INFLATED_BYTES >> 20} MiB", _UNCOMPRESSED)
    if not inflater.eof:
        raise DataError("the image is a damaged DICOM file", "export it again")
    plain.seek(0)
    return plain


def _require_storage(header: pydicom.Dataset, marked: bool) -> None:
    kind = header.get("SOPClassUID", "")
    if not marked and not kind:
        raise DataError("the image is named .dcm but is not DICOM", CONVERT)
    if kind not in _STORAGE:
        name = UID(kind).name
        shown = "DICOM of an unknown kind" if name == kind else f"DICOM of kind {name}"
        raise DataError(f"the image is {shown}, expected Ultrasound Image, Ultrasound Multi-frame or Secondary Capture", CONVERT)


def _pixel_bytes(header: pydicom.Dataset) -> int:
    """What a pixel takes while it is decoded: pydicom converts colours as three 32-bit floats."""
    grey = str(header.PhotometricInterpretation).startswith("MONOCHROME")
    return int(header.BitsAllocated) // 8 if grey else 12


def _bare_syntax(header: pydicom.Dataset) -> UID:
    """Transfer syntax of an object without file header, where the reader could only tell how its elements are written."""
    return ImplicitVRLittleEndian if header.original_encoding[0] else ExplicitVRLittleEndian


def _decode(file: BinaryIO, header: pydicom.Dataset, index: int, syntax: UID) -> np.ndarray:
    try:
        if syntax.is_encapsulated:
            _require_coded_size(_coded_frame(file, header, index), header, syntax)
        decoder = _decoder(syntax, int(header.BitsStored))
        return np.asarray(pixel_array(file, index=index, transfer_syntax_uid=syntax, decoding_plugin=decoder))
    except _DAMAGED:
        problem = f"the image is DICOM whose pixels, in {syntax.name}, are missing, damaged or of a kind that cannot be read"
        raise DataError(problem, _UNCOMPRESSED) from None


def _decoder(syntax: UID, bits: int) -> str:
    """Which of pydicom's decoders; "" leaves it the choice."""
    return "pillow" if syntax == JPEGExtended12Bit and bits <= 8 else _DECODERS.get(syntax, "")


def _coded_frame(file: BinaryIO, header: pydicom.Dataset, index: int) -> bytes:
    """The compressed bytes of a frame; `file` stands before the pixel element, where reading the header stopped."""
    file.seek(12, io.SEEK_CUR)  # tag, kind and length of the element
    tables = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    num_frames = int(header.get("NumberOfFrames") or 1)
    return bytes(get_frame(file, index, number_of_frames=num_frames, extended_offsets=tables if all(tables) else None))


def _require_coded_size(frame: bytes, header: pydicom.Dataset, syntax: UID) -> None:
    """Refuses a frame that would unfold to another size than the object's: decoders take memory as the frame says.

    Raises:
        ValueError: it would, or does not say.
    """
    size = int(header.Rows), int(header.Columns), int(header.SamplesPerPixel)
    if syntax == RLELossless:  # at best, 2 bytes make 128
        fits = len(frame) * 64 >= size[0] * size[1] * size[2] * int(header.BitsAllocated) // 8
    elif syntax in JPEG2000TransferSyntaxes or frame.startswith((b"\xff\x4f", _JP2)):
        fits = _size_of_jpeg_2000(frame) == size
    else:
        # with its end, since decoders make up what a cut frame lacks, and CharLS looks for it for minutes
        fits = _size_of_jpeg(frame) == size and b"\xff\xd9" in frame[-64:]
    if not fits or size[0] * size[1] > max(SMALL_FRAME_PIXELS, MAX_COMPRESSION * len(frame)):
        raise ValueError


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of the first frame header (SOF, or SOF55 of JPEG-LS)."""
    place = 2
    while place + 10 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width, num_components = struct.unpack_from(">HHB", frame, place + 5)
            return height, width, num_components
        place += 1 if marker == 0xFF else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of the code stream, bare or in a JP2 file. A box of no length would hold pydicom for ever."""
    place = 0
    if frame.startswith(_JP2):
        place = 12
        while frame[place + 4 : place + 8] != b"jp2c":
            length = int.from_bytes(frame[place : place + 4], "big")
            if length < 8:  # beyond the end, too
                return None
            place += length
        place += 8
    if frame[place : place + 4] != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, place + 8)
    (num_components,) = struct.unpack_from(">H", frame, place + 40)
    return bottom - top, right - left, num_components


def _grey(pixels: np.ndarray, header: pydicom.Dataset, syntax: UID) -> np.ndarray:
    """uint8 (H, W) of one decoded frame: (H, W), or (H, W, 3) in RGB, to which the decoder has brought YBR."""
    kind = str(header.PhotometricInterpretation)
    bits = int(header.BitsStored)
    known = _PLAIN + (_OF_JPEG_2000 if syntax in JPEG2000TransferSyntaxes else ())
    if pixels.dtype.kind != "u" or kind not in known:
        raise DataError("the image is DICOM with signed, float or otherwise unusual pixels, expected grey or RGB", CONVERT)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)
        bits = 8 if pixels.max() < 256 else 16  # some makers fill 16-bit tables with 8-bit values
    pixels = to_uint8(pixels, bits)
    if pixels.ndim == 3:
        return np.asarray(Image.fromarray(pixels).convert("L"))
    return 255 - pixels if kind == "MONOCHROME1" else pixels


def _crop(pixels_HW: np.ndarray, header: pydicom.Dataset) -> Picture:
    """The B-mode view that SequenceOfUltrasoundRegions (0018,6011) names, or all without one. Corners are inclusive."""
    view = _find_view(list(header.get("SequenceOfUltrasoundRegions") or ()))
    if view is None:
        return Picture(pixels_HW)
    left, top, right, bottom = _corners(view)
    height, width = pixels_HW.shape
    if left < 0 or top < 0 or right > width or bottom > height:  # one beyond the edge: written as an exclusive corner
        raise DataError("the image has an ultrasound region that leaves the picture", "export it again, or as PNG")
    if right < left or bottom < top or left >= width or top >= height:
        raise DataError("the image has an ultrasound region of no size", "export it again, or as PNG")
    return Picture(np.ascontiguousarray(pixels_HW[top : bottom + 1, left : right + 1]), _spacing(view))


def _device(header: pydicom.Dataset) -> str:
    """Maker and model of the scanner."""
    names = (str(header.get(name) or "").strip() for name in ("Manufacturer", "ManufacturerModelName"))
    return "".join(letter for letter in " ".join(filter(None, names)) if letter.isprintable())[:MAX_DEVICE_CHARS]


def _find_view(regions: Sequence[pydicom.Dataset]) -> pydicom.Dataset | None:
    """The largest 2D tissue region; None where no region says what it shows.

    Raises:
        DataError: there is no B-mode, or two views of similar size, of which either may be the labelled one.
    """
    tissue = [region for region in regions if _format_and_type(region) == (_SPACE_2D, _TISSUE)]
    if not tissue:
        keys = [key for pair in map(_format_and_type, regions) for key in (pair, pair[0])]
        if others := sorted({_NO_B_MODE[key] for key in keys if key in _NO_B_MODE}):
            problem = f"the image shows only {' and '.join(others)}, expected a 2D B-mode region"
            raise DataError(problem, "name a B-mode image of this case instead")
        return None
    best = max(tissue, key=_area)
    similar = [region for region in tissue if _area(region) * CLEARLY_LARGER > _area(best) and not _overlap(region, best)]
    if similar:
        problem = f"the image shows {1 + len(similar)} B-mode views of similar size, expected one"
        raise DataError(problem, "crop it to the view that was labelled, or export that view alone")
    return best


def _format_and_type(region: pydicom.Dataset) -> tuple[int, int]:
    return int(region.get("RegionSpatialFormat") or 0), int(region.get("RegionDataType") or 0)


def _corners(region: pydicom.Dataset) -> tuple[int, int, int, int]:
    names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    left, top, right, bottom = (int(region[name].value) for name in names)
    return left, top, right, bottom


def _area(region: pydicom.Dataset) -> int:
    left, top, right, bottom = _corners(region)
    return max(0, right - left + 1) * max(0, bottom - top + 1)


def _overlap(one: pydicom.Dataset, other: pydicom.Dataset) -> bool:
    """Whether two regions share more than half of the smaller one: they are one view, described twice."""
    starts = np.maximum(_corners(one)[:2], _corners(other)[:2])
    ends = np.minimum(_corners(one)[2:], _corners(other)[2:])
    width, height = np.maximum(ends - starts + 1, 0)
    return bool(2 * width * height > min(_area(one), _area(other)))


def _spacing(region: pydicom.Dataset) -> tuple[float, float] | None:
    """(down, across) in mm a pixel, if both axes are in centimetres."""
    if any(region.get(f"PhysicalUnits{axis}Direction") != _CENTIMETRE for axis in "XY"):
        return None
    down, across = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "YX")
    return (down, across) if 0 < down < np.inf and 0 < across < np.inf else None
