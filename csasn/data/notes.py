"""The fixed words that say what was read otherwise than a file asks for; they name nothing of the file."""

SLIVER = "its ultrasound region is a sliver, the whole picture is shown"
BEYOND = "its ultrasound region lies beyond the picture, the whole picture is shown"
SQUARED = "its pixels were not square, it is resampled"
UNLIKELY = "its pixels would be more than four times as long as wide, which is not believed"
FLOW = "colour flow lies over its B-mode"
MORE_FRAMES = "it holds more frames than NumberOfFrames says, the first ones are counted"


def own_range(used: int, bits: int) -> tuple[str, ...]:
    """What to say where a picture whose values use `used` of `bits` bits is shown by its own range; nothing where it uses all."""
    return (f"its values use {used} of {bits} bits, it is shown by their own range",) if used < bits else ()
