"""Reads every DICOM file of a folder with GDCM, an independent reader: python gdcm_reader.py FOLDER

Writes NAME.npz (samples as stored, colours and depth) beside NAME.dcm, or none where GDCM refuses. It runs in a process of its own:
a damaged frame can make GDCM end the process. Files that have an answer, or were begun before, are passed over.
"""

import sys
from pathlib import Path

import gdcm
import numpy as np


def samples(image: gdcm.Image) -> np.ndarray:
    """(frames or none, H, W) or (..., 3), as stored; 2 bytes a pixel of YBR_FULL_422 stay flat."""
    form = image.GetPixelFormat()
    data = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), np.uint8)
    kind = f"{'i' if form.GetPixelRepresentation() else 'u'}{form.GetBitsAllocated() // 8}"
    values = data.view(kind)
    width, height = image.GetDimension(0), image.GetDimension(1)
    count = form.GetSamplesPerPixel()
    if values.size % (width * height * count):
        return values
    if count == 1:
        return values.reshape(-1, height, width)[0]
    if image.GetPlanarConfiguration() == 1:
        return values.reshape(-1, 3, height, width)[0].transpose(1, 2, 0)
    return values.reshape(-1, height, width, 3)[0]


def read(path: Path) -> dict[str, object] | None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    image = reader.GetImage()
    label = str(image.GetPhotometricInterpretation()).strip()
    if label == "PALETTE COLOR":
        through = gdcm.ImageApplyLookupTable()
        through.SetInput(image)
        if not through.Apply():
            return None
        image, label = through.GetOutput(), "RGB"
    form = image.GetPixelFormat()
    return {"values": samples(image), "label": label, "bits": form.GetBitsStored()}


def main(folder: Path) -> None:
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    for path in sorted(folder.glob("*.dcm")):
        begun = path.with_suffix(".begun")
        if begun.exists():
            continue
        begun.touch()
        if (found := read(path)) is not None:
            np.savez(path.with_suffix(".npz"), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
