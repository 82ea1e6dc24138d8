"""DICOM objects that tests make, and what is said of those that cannot be read."""

from pathlib import Path

import gdcm
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

from csasn.pictures.images import read_image

ULTRASOUND, CLIP, CAPTURE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.7"
NAME = "SECRETNAME99"
PIXELS = "the image is DICOM whose PixelData (7FE0,0010)"
DAMAGED = "is damaged or cut short"


def ramp(height: int = 40, width: int = 60) -> np.ndarray:
    """A picture whose every pixel tells where it is, as far as 8 bits go."""
    return (np.arange(height)[:, None] * 5 + np.arange(width)[None, :]).astype(np.uint8)


def dicom(pixels: np.ndarray, kind: str = "MONOCHROME2", bits: int = 8, sop: str = ULTRASOUND, **elements: object) -> Dataset:
    """A DICOM object with `pixels`: (H, W), (H, W, 3), or with frames before that."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop, "1.2.3"
    dataset.PatientName = NAME
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    set_pixel_data(dataset, pixels, kind, bits, generate_instance_uid=False)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def region(
    corners: tuple[int, int, int, int], unit: int = 3, delta: float = 0.01, form: int = 1, kind: int = 1, aspect: float = 1
) -> Dataset:
    """An ultrasound region; corners are left, top, right, bottom, inclusive; `aspect` is a pixel's height over its width."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, kind, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = corners
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta, aspect * delta
    return item


def write(folder: Path, dataset: Dataset, ending: str = ".dcm", syntax: str = ExplicitVRLittleEndian) -> Path:
    path = folder / f"{NAME}{ending}"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
    return path


def recode(path: Path, syntax: str) -> Path:
    """The object in `path`, which is uncompressed, coded by GDCM."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path


def read(folder: Path, dataset: Dataset, frame: int | None = None) -> np.ndarray:
    return read_image(write(folder, dataset), frame).pixels_HW
