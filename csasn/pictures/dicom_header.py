"""The header of a DICOM object: its transfer syntax and the few elements that pictures need. Of a patient nothing is read.

Sources: DICOM PS3.10 7 (files), PS3.5 7 and annex A (elements, transfer syntaxes), PS3.3 C.7.6.3 (pixels).
"""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from csasn.errors import DataError
from csasn.pictures.picture import CONVERT
from csasn.pictures.quiet import silence_logs

silence_logs("pydicom")
MAX_INFLATED_BYTES = 256 << 20
MAX_HEADER_READS = 100_000  # about 3 an element; a real header has a few thousand elements
MAX_FILE_HEADER_BYTES = 256 << 10  # a real one has a few hundred
MAX_VALUE_BYTES = 1 << 20  # of one element of the header; a lookup table has an eighth of it
UNCOMPRESSED = "export it uncompressed (Explicit VR Little Endian)"
AGAIN = "export it again"
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
CODED = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, RLELossless)
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
_COLOURS = ("Red", "Green", "Blue")
_ELEMENTS = [
    *("SOPClassUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "PresentationLUTShape", "PixelAspectRatio", "PixelSpacing", "NominalScannedPixelSpacing"),
    *("SequenceOfUltrasoundRegions", "Manufacturer", "ManufacturerModelName"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
]
_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
_PLAIN_START = bytes(128) + b"DICM" + struct.pack("<HH2sH20s", 2, 0x10, b"UI", 20, ExplicitVRLittleEndian.encode())


@dataclass(frozen=True)
class Object:
    """A DICOM object whose header was read; `file` stands before its pixels. `syntax` is None where the file does not say."""

    file: BinaryIO
    elements: pydicom.Dataset
    syntax: UID | None

    def number(self, keyword: str, default: int = 0) -> int:
        """A whole number of the header.

        Raises:
            DataError: the element is no whole number.
        """
        value = self.elements.get(keyword)
        if value is None or value == "":
            return default
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError):
            raise wrong(keyword, "is not one whole number") from None

    def text(self, keyword: str) -> str:
        """A text of the header, the first where there are several, "" where there is none."""
        value = self.elements.get(keyword)
        first = value[0] if isinstance(value, pydicom.multival.MultiValue) and len(value) else value
        return str(first or "").strip()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Finite numbers of an element, () where it is missing or holds another thing."""
        value = self.elements.get(keyword)
        values = list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
        try:
            found = tuple(float(item) for item in values)
        except (TypeError, ValueError):
            return ()
        return found if all(abs(item) < 1e30 for item in found) else ()


def name_of(keyword: str) -> str:
    """An element by name and number, as in `Rows (0028,0010)`."""
    tag = tag_for_keyword(keyword) or 0
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def wrong(keyword: str, problem: str, hint: str = AGAIN) -> DataError:
    """What to say of an element that cannot be right."""
    return DataError(f"the image is DICOM whose {name_of(keyword)} {problem}", hint)


def read_header(file: BinaryIO, marked: bool) -> Object:
    """The header of a DICOM file; `marked` tells whether it has the preamble that files, unlike bare objects, begin with.

    Raises:
        DataError: the object is of a kind or in a transfer syntax that is not read.
        Exception: those of `csasn.pictures.picture.UNREADABLE` and of pydicom, where it is damaged.
    """
    syntax = _syntax(file) if marked else None
    if syntax is not None:
        _require_known(syntax)
        file = _inflate(file) if syntax == DeflatedExplicitVRLittleEndian else file
    begin = 0 if marked or file.read(4) != b"DICM" else 4  # of files without the 128 bytes before it
    elements = pydicom.dcmread(
        _Counted(file, begin), MAX_VALUE_BYTES, stop_before_pixels=True, force=not marked, specific_tags=_ELEMENTS
    )
    if any(isinstance(element, RawDataElement) and element.length > MAX_VALUE_BYTES for element in elements.values()):
        raise ValueError
    syntax = UID(elements.file_meta.get("TransferSyntaxUID") or "") or None
    if syntax is not None:
        _require_known(syntax)
    found = Object(file, elements, syntax)
    _require_storage(found)
    return found


def _syntax(file: BinaryIO) -> UID | None:
    """Transfer syntax in the file header, which comes before any limit of pydicom's own and may not be endless."""
    file.seek(132)
    start = io.BytesIO(file.read(MAX_FILE_HEADER_BYTES))
    file.seek(0)
    meta = read_dataset(start, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if start.tell() == MAX_FILE_HEADER_BYTES:
        raise ValueError
    return UID(str(meta.get("TransferSyntaxUID") or "")) or None


class _Counted:
    """A file from `begin` on that refuses to be read in too many small pieces: a header of a million elements takes minutes."""

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file, self._begin = file, begin
        self._num_reads = 0
        file.seek(begin)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(place + (self._begin if whence == io.SEEK_SET else 0), whence) - self._begin

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell() - self._begin

    def read(self, size: int = -1) -> bytes:
        """As of any file.

        Raises:
            ValueError: after MAX_HEADER_READS times.
        """
        self._num_reads += 1
        if self._num_reads > MAX_HEADER_READS:
            raise ValueError
        return self._file.read(size)


def _require_known(syntax: UID) -> None:
    """Refuses what no decoder is installed for: video, and private syntaxes."""
    if syntax in NATIVE or syntax in CODED:
        return
    name = syntax.name if syntax.name != syntax else "an unknown transfer syntax"
    hint = "export the frame that was measured as an image" if name.startswith(("MPEG", "HEVC")) else UNCOMPRESSED
    raise DataError(f"the image is DICOM in {name}, which cannot be read", hint)


def _inflate(file: BinaryIO) -> BinaryIO:
    """A deflated file as it would be in Explicit VR Little Endian, its file header apart."""
    start = file.read(144)
    if start[132:140] != _GROUP_LENGTH:
        raise ValueError
    file.seek(144 + int.from_bytes(start[140:], "little"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = io.BytesIO()
    plain.write(_PLAIN_START)
    most = MAX_INFLATED_BYTES + len(_PLAIN_START)
    while not inflater.eof and (piece := file.read(1 << 20)):
        plain.write(inflater.decompress(piece, most - plain.tell() + 1))
        if plain.tell() > most:
            raise DataError(f"the image is a deflated DICOM file of more than {MAX_INFLATED_BYTES >> 20} MiB", UNCOMPRESSED)
    if not inflater.eof:
        raise ValueError
    plain.seek(0)
    return plain


def _require_storage(found: Object) -> None:
    kind = found.text("SOPClassUID") or str(found.elements.file_meta.get("MediaStorageSOPClassUID") or "")
    if not kind:
        raise wrong("SOPClassUID", "is missing", CONVERT)
    if kind not in _STORAGE:
        name = UID(kind).name
        shown = "DICOM of an unknown kind" if name == kind else f"DICOM of kind {name}"
        expected = "expected Ultrasound Image, Ultrasound Multi-frame or Secondary Capture"
        raise DataError(f"the image is {shown} by its {name_of('SOPClassUID')}, {expected}", CONVERT)
