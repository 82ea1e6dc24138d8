"""imagecodecs as a plugin of pydicom, which asks it for names of these forms.

It brings libjpeg-turbo, CharLS and openjpeg for JPEG, JPEG-LS and JPEG 2000.
"""

import imagecodecs
import numpy as np
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
)

NAME = "imagecodecs"
_JPEG = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_JPEG_2000 = (JPEG2000, JPEG2000Lossless, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL)
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys((*_JPEG, *JPEGLSTransferSyntaxes, *_JPEG_2000), (NAME,))


def is_available(uid: str) -> bool:
    """Whether `uid` is one of the syntaxes that this is for."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(code: bytes, runner: DecodeRunner) -> bytes:
    """The pixels of a frame, row by row, each sample in as many bytes as its precision in `code` takes.

    Raises:
        RuntimeError, ValueError: it is damaged, or not of the object's kind.
    """
    pixels = _decode(code, runner)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


def _decode(code: bytes, runner: DecodeRunner) -> np.ndarray:
    if runner.transfer_syntax in JPEGLSTransferSyntaxes:
        return imagecodecs.jpegls_decode(code)
    if runner.transfer_syntax in _JPEG_2000:
        if runner.photometric_interpretation in (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT):
            runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)
        return imagecodecs.jpeg2k_decode(code)
    space = "GRAYSCALE" if runner.samples_per_pixel == 1 else "RGB"  # before and after: pydicom converts colours
    pixels = imagecodecs.jpeg8_decode(code, colorspace=space, outcolorspace=space)
    if runner.transfer_syntax == JPEGExtended12Bit and pixels.itemsize == 1:
        raise ValueError("8 bits in place of 12")
    return pixels


for _syntax in DECODER_DEPENDENCIES:
    get_decoder(_syntax).add_plugin(NAME, (__name__, "decode_frame"))
