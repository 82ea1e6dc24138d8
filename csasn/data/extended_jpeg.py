"""JPEG Extended (process 4) of more than 8 bits, as a decoder of pydicom's: neither Pillow nor pydicom's own use of GDCM reads it.

GDCM writes its complaints to standard error; here they are switched off, since they are about a file. Its libjpeg's few words on
damaged scans cannot be, and hold numbers alone.
"""

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGExtended12Bit

NAME = "csasn"
MAX_BITS = 12
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.10",)}  # pydicom asks for it

for _switch_off in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
    _switch_off()


def is_available(uid: str) -> bool:
    """Whether `uid` is the one syntax that this is for, as pydicom asks each of its decoders."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(code: bytes, runner: DecodeRunner) -> bytes:
    """The pixels of a grey frame, 16 bits each.

    Raises:
        ValueError: it is in colour, of other than 9 to 12 bits, or damaged.
    """
    if runner.samples_per_pixel != 1 or runner.bits_allocated != 16 or not 8 < runner.bits_stored <= MAX_BITS:
        raise ValueError
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    if not _codec(runner.rows, runner.columns).Decode(_element(code), pixels) or pixels.GetByteValue() is None:
        raise ValueError
    return bytes(pixels.GetByteValue().GetBuffer().encode("utf-8", "surrogateescape"))  # bytes come as text


def _codec(height: int, width: int) -> gdcm.JPEGCodec:
    codec = gdcm.JPEGCodec()
    codec.SetNumberOfDimensions(2)
    codec.SetDimensions((width, height, 1))
    # the bits allocated choose the codec: with 16 GDCM would try, and complain of, one that reads only lossless frames
    codec.SetPixelFormat(gdcm.PixelFormat(1, MAX_BITS, MAX_BITS, MAX_BITS - 1, 0))
    codec.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    return codec


def _element(code: bytes) -> gdcm.DataElement:
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(code)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    return element


get_decoder(JPEGExtended12Bit).add_plugin(NAME, (__name__, "decode_frame"))
