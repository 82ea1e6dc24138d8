"""A picture as the rest of the program sees it, what may be said of it, and the limits that keep decoders within memory."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from csasn.errors import DataError

MAX_PIXELS = 178_956_970  # of one frame; Pillow's own limit
MAX_CLIP_PIXELS = 1 << 32  # of all frames of a clip
MAX_FRAME_BYTES = 128 << 20  # of one frame as it is decoded: 33 million pixels in colour, 67 million of 16 bits
MAX_FRAMES = 100_000  # of a clip or pages of a file: an hour of video
_ORDINARY = (OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError)
_OWN = (struct.error, zlib.error, Image.DecompressionBombError)
UNREADABLE = _ORDINARY + _OWN  # what decoders raise on damaged files, as random damage has shown
READ = "PNG, JPEG, BMP, TIFF, WebP, JPEG 2000 or DICOM"
CONVERT = "save it as PNG, JPEG or uncompressed DICOM"

# what may be said of a picture that is read otherwise than its file asks for; it names nothing of the file
SLIVER = "its ultrasound region is a sliver, the whole picture is shown"
BEYOND = "its ultrasound region lies beyond the picture, the whole picture is shown"
SQUARED = "its pixels were not square, it is resampled"
UNLIKELY = "its pixels would be more than four times as long as wide, which is not believed"
FLOW = "colour flow lies over its B-mode"
MORE_FRAMES = "it holds more frames than NumberOfFrames says, the first ones are counted"


@dataclass(frozen=True)
class Picture:
    """A B-mode picture: uint8 (H, W), its pixels square; `spacing_mm` is (down, across) in mm a pixel, where the file says it.

    `device` is the scanner's maker and model, "" where the file does not say; `notes` say in fixed words what was read otherwise
    than the file asks for; `colour_share` is the share of pixels that have a colour.
    """

    pixels_HW: np.ndarray
    spacing_mm: tuple[float, float] | None = None
    device: str = ""
    notes: tuple[str, ...] = ()
    colour_share: float = 0.0


def require_frame(frame: int | None, num_frames: int) -> None:
    """Refuses a frame, counted from 1, that an image of `num_frames` does not have.

    Raises:
        DataError: it has not.
    """
    if frame is not None and not 1 <= frame <= num_frames:
        raise DataError(f"frame {frame} is not in the image, expected 1 to {num_frames}", "frames count from 1")


def frame_index(frame: int | None, num_frames: int) -> int:
    """Where a frame lies, counted from 0; None is the middle one, of an even number the earlier."""
    return (frame or (num_frames + 1) // 2) - 1


def require_bounds(height: int, width: int, num_frames: int, pixel_bytes: int) -> None:
    """Refuses an image too large to decode, where decoding takes `pixel_bytes` a pixel.

    Raises:
        DataError: a frame, or all of them, have too many pixels, or a frame takes too much memory.
    """
    if height * width > MAX_PIXELS or height * width * num_frames > MAX_CLIP_PIXELS:
        expected = f"expected at most {MAX_PIXELS} pixels a frame and {MAX_CLIP_PIXELS} in all"
        raise DataError(f"the image is too large: {num_frames} x {width} x {height}, {expected}", "is this an ultrasound image?")
    if (size := height * width * pixel_bytes) > MAX_FRAME_BYTES:
        problem = f"the image would take {size >> 20} MiB, expected at most {MAX_FRAME_BYTES >> 20} MiB a frame"
        raise DataError(problem, "export it at the resolution of the scanner")


def no_memory() -> DataError:
    """What to say where memory ends."""
    return DataError("the image needs more memory than there is", "end other programs, or export it again if it alone is refused")


def own_range(used: int, bits: int) -> tuple[str, ...]:
    """What to say where a picture whose values use `used` of `bits` bits is shown by its own range; nothing where it uses all."""
    return (f"its values use {used} of {bits} bits, it is shown by their own range",) if used < bits else ()
