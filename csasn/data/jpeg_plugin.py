"""Our own decoders of JPEG as a plugin of pydicom, which asks it for names of these forms."""

import numpy as np
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

from csasn.data.extended_jpeg import decode_extended
from csasn.data.lossless_jpeg import decode_lossless

NAME = "csasn"
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys((JPEGLossless, JPEGLosslessSV1, JPEGExtended12Bit), ())


def is_available(uid: str) -> bool:
    """Whether `uid` is one of the syntaxes that this is for."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(code: bytes, runner: DecodeRunner) -> bytes:
    """The pixels of a frame, row by row, of 8 or 16 bits.

    Raises:
        ValueError, LookupError: it is damaged, or not of the object's kind.
    """
    pixels, bits = (decode_extended(code), 12) if runner.transfer_syntax == JPEGExtended12Bit else decode_lossless(code)
    depth = 8 if bits <= 8 else 16
    runner.set_option("bits_allocated", depth)
    runner.set_option("planar_configuration", 0)
    return pixels.astype(np.dtype(f"<u{depth // 8}")).tobytes()


for _syntax in DECODER_DEPENDENCIES:
    get_decoder(_syntax).add_plugin(NAME, (__name__, "decode_frame"))
