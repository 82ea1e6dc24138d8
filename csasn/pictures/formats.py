"""Telling a file's format by its first bytes, whatever its name."""

import struct
from typing import Literal

from csasn.errors import DataError
from csasn.pictures.picture import CONVERT, READ

HEAD_BYTES = 512  # enough to tell
Format = Literal["PNG", "JPEG", "BMP", "TIFF", "WebP", "JPEG 2000", "DICOM", "bare DICOM"]

_READ: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_REFUSED = (
    (b"GIF8", "GIF"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"\0\5\x16\7", "a companion file that macOS writes (AppleDouble), not the image"),
    (b"\0\5\x16\0", "a companion file that macOS writes (AppleSingle), not the image"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"NRRD", "NRRD"),
    (b"ObjectType", "MetaImage"),
    (b"\x89HDF", "HDF5"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"MATLAB", "a MATLAB file"),
    (b"v/1\1", "OpenEXR"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"qoif", "QOI"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"\0\0\1\xba", "an MPEG video"),
    (b"\0\0\1\xb3", "an MPEG video"),
    (b"0&\xb2u", "a Windows Media video"),
    (b"\xd0\xcf\x11\xe0", "an Office document"),
    (b"<?xml", "an XML document"),
    (b"<svg", "an SVG drawing"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"{\\rtf", "an RTF document"),
    *((b"P%d" % number, "a portable anymap (PNM)") for number in range(1, 8)),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"hevc": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}
_SHORTEST = 8


def tell_format(head: bytes, suffix: str) -> Format:
    """The format of a file that begins with `head` (HEAD_BYTES of it); `suffix`, such as .dcm, only changes what is said.

    Raises:
        DataError: it is empty, of a format that is not read, which is named, or of none that is known.
    """
    if head[128:132] == b"DICM":
        return "DICOM"
    for start, known in _READ:
        if head.startswith(start):
            return known
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if name := _refused(head):
        hint = "remove it from the manifest" if "companion" in name else CONVERT
        raise DataError(f"the image is {name}, expected {READ}", hint)
    if _begins_as_dicom(head):
        return "bare DICOM"
    if len(head) < _SHORTEST:
        raise DataError("the image is empty" if not head else "the image is damaged or cut short", CONVERT)
    named = "named .dcm but is not DICOM" if suffix.lower() == ".dcm" else f"damaged or not {READ}"
    raise DataError(f"the image is {named}", CONVERT)


def _refused(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video (MP4 or QuickTime)")
    if head[:4] == b"RIFF":
        return "an AVI video" if head[8:12] == b"AVI " else "a RIFF file"
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return "NIfTI"
    return next((name for start, name in _REFUSED if head.startswith(start)), None)


def _begins_as_dicom(head: bytes) -> bool:
    """Whether this may be a DICOM object without the 128 bytes before it: an element of group 2 or 8, little endian."""
    if head[:4] == b"DICM":
        return True
    if len(head) < _SHORTEST:
        return False
    group, element, length = struct.unpack_from("<HHI", head)
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return group in (2, 8) and element < 0x100 and (explicit or length < 1 << 16)
