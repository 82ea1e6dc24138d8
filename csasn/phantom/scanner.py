"""From tissue to a B-mode picture: shadowing, speckle, point spread, log compression, geometry and burned-in calipers.

Fully developed speckle: each point has a circular complex Gaussian number with the deviation of the local echo, blurred by the
point spread function; its modulus is the envelope (Wagner 1983). Looks are incoherent averages, as of spatial compounding. It
models what differs between makes of scanners, not any one of them.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d, map_coordinates

from csasn.phantom.plane import Field, Mask, Picture, Plane, Tissue

Speckle = npt.NDArray[np.complex64]
SPREAD_CM = 0.006  # variance (cm2) that the beam gains in each cm: what fills in behind an obstacle
FILL_IN_DB = -26.0  # clutter in the deepest shadow


@dataclass(frozen=True)
class Scanner:
    """A make of scanner. Point spread as axial and lateral deviation in cm at the focus; gain and tilt (a cm) in dB."""

    name: str
    axial_cm: float
    lateral_cm: float
    looks: int
    dynamic_range_db: float
    gain_db: float
    tilt_db: float
    gamma: float
    noise_db: float
    sharpen: float = 0.0
    trapezoid: float = 0.0  # how much narrower the top is than the bottom
    depth_cm: float = 4.0
    calipers: Literal["plus", "cross", "dots"] = "plus"
    caliper_rate: float = 0.0


SCANNERS: dict[str, Scanner] = {
    "centerA": Scanner("Phantom-L14", 0.014, 0.032, 1, 58, 0, 0.0, 1.0, -52, depth_cm=3.8, caliper_rate=0.05),
    "centerB": Scanner("Phantom-L9", 0.022, 0.052, 1, 52, 2, -1.2, 0.95, -42, depth_cm=4.4, calipers="dots", caliper_rate=0.40),
    "centerC": Scanner("Phantom-C12X", 0.013, 0.026, 3, 66, -1, 0.6, 1.15, -56, sharpen=0.6, trapezoid=0.12, depth_cm=4.0),
    "centerD": Scanner(
        "Phantom-L11S", 0.018, 0.042, 2, 57, 1, -0.5, 0.85, -47, sharpen=0.25, depth_cm=4.2, calipers="cross", caliper_rate=0.20
    ),
}


@dataclass(frozen=True)
class Knobs:
    """What the examiner turned before freezing one picture, relative to the scanner's habit."""

    gain_db: float
    dynamic_range_db: float
    focus_cm: float


def turn_knobs(rng: np.random.Generator, scanner: Scanner, focus_cm: float) -> Knobs:
    """Settings of one picture, focused near `focus_cm`."""
    return Knobs(rng.normal(scanner.gain_db, 1.8), rng.normal(scanner.dynamic_range_db, 2.5), focus_cm + rng.uniform(-0.5, 0.5))


def scan(
    rng: np.random.Generator, plane: Plane, tissue: Tissue, scanner: Scanner, knobs: Knobs, *, num_frames: int
) -> list[Picture]:
    """`num_frames` pictures (H, W, 8-bit) of the same tissue; their speckle drifts a little from frame to frame."""
    beam = transmission(tissue.loss, plane)
    amplitude = (10 ** (tissue.echo / 20) * beam).astype(np.float32)
    mirror = _blur(tissue.mirror * beam, plane, scanner, knobs)
    contact = _contact(rng, plane)
    speckle = [_complex_noise(rng, plane) for _ in range(scanner.looks)]
    frames = []
    for frame in range(num_frames):
        if frame:
            speckle = [0.92 * look + np.float32(0.392) * _complex_noise(rng, plane) for look in speckle]
        envelope = np.zeros_like(amplitude)
        for look in speckle:
            envelope += np.abs(_speckle_blur(look * amplitude, plane, scanner, knobs) + mirror)
        floor = 10 ** ((scanner.noise_db + 3 * plane.z) / 20) * np.abs(_complex_noise(rng, plane))
        frames.append(_compress(_detect(envelope, plane, scanner) / scanner.looks * contact + floor, plane, scanner, knobs))
    return frames


def transmission(loss_HW: Field, plane: Plane) -> Field:
    """Amplitude that reaches each point and returns, 1 without loss.

    The beam is marched down row by row: each row takes its loss, and energy diffuses across, so that a shadow has soft flanks and
    fills in with depth as diffraction and compounding let it.
    """
    factor = 10 ** (-np.clip(loss_HW, -20, 400) * np.float32(plane.spacing_cm / 20))
    share = min(0.25, SPREAD_CM / plane.spacing_cm / 2)
    beam = np.ones(plane.size_px + 2, np.float32)
    rows = np.empty_like(loss_HW)
    for row in range(plane.size_px):
        middle = beam[1:-1]
        middle = (middle + share * (beam[:-2] + beam[2:] - 2 * middle)) * factor[row]
        beam[1:-1] = middle
        beam[0], beam[-1] = middle[0], middle[-1]
        rows[row] = middle
    return np.maximum(rows, np.float32(10 ** (FILL_IN_DB / 20)))


def _detect(envelope_HW: Field, plane: Plane, scanner: Scanner) -> Field:
    """The low pass behind the detector, which takes the deepest nulls out of the speckle."""
    across = gaussian_filter1d(envelope_HW, 0.5 * scanner.lateral_cm / plane.spacing_cm, axis=1, truncate=3.0, mode="nearest")
    smooth: Field = gaussian_filter1d(across, 0.6 * scanner.axial_cm / plane.spacing_cm, axis=0, truncate=3.0, mode="nearest")
    return smooth


def _complex_noise(rng: np.random.Generator, plane: Plane) -> Speckle:
    pairs = rng.standard_normal((plane.size_px, 2 * plane.size_px), dtype=np.float32)
    return pairs.view(np.complex64)


def _contact(rng: np.random.Generator, plane: Plane) -> Field:
    """Across the probe some elements couple worse: a gain (1, W) of about 1 that falls towards one or both ends."""
    across = np.linspace(-1, 1, plane.size_px, dtype=np.float32)
    left, right = rng.uniform(0, 5, 2)
    loss = left * np.clip(-across - 0.6, 0, 1) ** 2 / 0.16 + right * np.clip(across - 0.6, 0, 1) ** 2 / 0.16
    return np.asarray(10 ** (-loss / 20), np.float32)[None, :]


def _defocus(plane: Plane, knobs: Knobs) -> Field:
    return np.asarray(np.clip(np.square((plane.z - knobs.focus_cm) / 2.2), 0, 1), np.float32)


def _blur(field_HW: Field, plane: Plane, scanner: Scanner, knobs: Knobs) -> Field:
    """A real field through the point spread function: wider across away from the focus."""
    axial, lateral = scanner.axial_cm / plane.spacing_cm, scanner.lateral_cm / plane.spacing_cm
    rows = gaussian_filter1d(field_HW, axial, axis=0, truncate=3.0, mode="nearest")
    sharp = gaussian_filter1d(rows, lateral, axis=1, truncate=3.0, mode="nearest")
    wide = gaussian_filter1d(sharp, 1.6 * lateral, axis=1, truncate=3.0, mode="nearest")
    away = _defocus(plane, knobs)
    return np.asarray((1 - away) * sharp + away * wide, np.float32)


def _speckle_blur(noise_HW: Speckle, plane: Plane, scanner: Scanner, knobs: Knobs) -> Speckle:
    """Complex noise through the same function, with the mean power kept."""
    axial, lateral = scanner.axial_cm / plane.spacing_cm, scanner.lateral_cm / plane.spacing_cm
    parts = (_blur(np.ascontiguousarray(part), plane, scanner, knobs) for part in (noise_HW.real, noise_HW.imag))
    real, imaginary = parts
    away = _defocus(plane, knobs)
    gain = (1 - away) / _power(lateral) + away / _power(lateral * np.hypot(1, 1.6))
    return np.asarray((real + 1j * imaginary) * (gain / _power(axial)), np.complex64)


def _power(sigma_px: float) -> float:
    """Root of the summed squares of a Gaussian kernel's weights."""
    reach = np.arange(-40, 41)
    kernel = np.exp(-0.5 * np.square(reach / sigma_px))
    return float(np.sqrt(np.sum(np.square(kernel / kernel.sum()))))


def _compress(envelope_HW: Field, plane: Plane, scanner: Scanner, knobs: Knobs) -> Picture:
    """Envelope to 8-bit grey: log compression over the dynamic range, time-gain tilt, grey map, edge enhancement, geometry."""
    level = 20 * np.log10(envelope_HW + np.float32(1e-6)) + knobs.gain_db + scanner.tilt_db * (plane.z - 1.5)
    grey = np.clip(0.54 + level / knobs.dynamic_range_db, 0, 1) ** scanner.gamma
    if scanner.sharpen:
        smooth = gaussian_filter1d(gaussian_filter1d(grey, 1.6, axis=0), 1.6, axis=1)
        grey = np.clip(grey + scanner.sharpen * (grey - smooth), 0, 1)
    if scanner.trapezoid:
        grey = map_coordinates(grey, _trapezoid(plane, scanner.trapezoid), order=1, cval=0.0)
    return np.asarray(np.rint(grey * 255), np.uint8)


def _trapezoid(plane: Plane, narrow: float) -> Field:
    rows = plane.z / plane.spacing_cm - 0.5
    across = plane.x / (1 - narrow * (1 - plane.z / plane.depth_cm))
    return np.stack([rows, (across + plane.depth_cm / 2) / plane.spacing_cm - 0.5])


def seen(mask_HW: Mask, plane: Plane, scanner: Scanner) -> Mask:
    """The nodule's mask in the picture's geometry."""
    if not scanner.trapezoid:
        return mask_HW
    moved = map_coordinates(mask_HW.astype(np.float32), _trapezoid(plane, scanner.trapezoid), order=1, cval=0.0)
    return np.asarray(moved > 0.5, np.bool_)


def burn_calipers(picture_HW: Picture, mask_HW: Mask, style: str) -> Picture:
    """A copy with marks at the nodule's greatest height and width, as examiners leave them: a label shortcut in real data."""
    result = picture_HW.copy()
    rows, columns = np.nonzero(mask_HW)
    arm = max(2, picture_HW.shape[0] // 56)
    ends = [(axis.argmin(), axis.argmax()) for axis in (rows, columns)]
    for first, last in ends:
        for end in (first, last):
            _mark(result, int(rows[end]), int(columns[end]), arm, style)
        if style == "dots":
            steps = np.linspace(0, 1, max(2, int(np.hypot(rows[first] - rows[last], columns[first] - columns[last])) // 5))
            line_z = np.rint(rows[first] + steps * (rows[last] - rows[first])).astype(np.intp)
            line_x = np.rint(columns[first] + steps * (columns[last] - columns[first])).astype(np.intp)
            result[line_z, line_x] = 225
    return result


def _mark(picture_HW: Picture, row: int, column: int, arm: int, style: str) -> None:
    """Draws into `picture_HW`, which the caller has copied."""
    height, width = picture_HW.shape
    for step in range(-arm, arm + 1):
        strokes = ((step, step), (step, -step)) if style == "cross" else ((step, 0), (0, step))
        for down, right in strokes:
            if 0 <= row + down < height and 0 <= column + right < width:
                picture_HW[row + down, column + right] = 245
