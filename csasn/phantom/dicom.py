"""A drawing as a DICOM ultrasound object: a picture on a scanner's black screen, with its region of pixels in centimetres."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage, generate_uid

from csasn.phantom.case import Drawing
from csasn.phantom.plane import Picture
from csasn.platform.randomness import derive_seed

LEFT, TOP, RIGHT, BOTTOM = 0.16, 0.14, 0.18, 0.08  # margins of the screen, as shares of the picture's side
CENTIMETRES = 3


def write_dicom(path: Path, drawing: Drawing, *, seed: int, site: str, name: str, scanner: str) -> None:
    """Writes `drawing` as an Ultrasound (Multi-frame) Image, explicit little endian, MONOCHROME2; `name` is the file's stem.

    UIDs and dates follow from (seed, site, name), so that equal settings give equal bytes. Decoration lies outside the region.
    """
    size = drawing.mask.shape[0]
    top, left = round(TOP * size), round(LEFT * size)
    screen = _screen(size, drawing.spacing_cm, scanner)
    frames = np.repeat(screen[None], drawing.frames.shape[0], axis=0)
    frames[:, top : top + size, left : left + size] = drawing.frames
    dataset = _identified(path, seed, site, name, stack=len(frames) > 1)
    dataset.Manufacturer, dataset.ManufacturerModelName = "PHANTOM", scanner
    dataset.BurnedInAnnotation = "NO"
    dataset.SequenceOfUltrasoundRegions = [_region(left, top, size, drawing.spacing_cm)]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    if len(frames) > 1:
        dataset.NumberOfFrames, dataset.FrameTime, dataset.FrameIncrementPointer = len(frames), 40.0, 0x00181063
    data = frames.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)


def _identified(path: Path, seed: int, site: str, name: str, stack: bool) -> FileDataset:
    """An object without pixels, of a patient who is plainly made up."""
    kind = UltrasoundMultiFrameImageStorage if stack else UltrasoundImageStorage
    case, _, view = name.partition("-")
    uids = [
        generate_uid(entropy_srcs=[f"phantom {seed} {site}", level])
        for level in (f"study {case}", f"series {case}", f"image {name}")
    ]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = kind, uids[2], ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, uids[2]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids[0], uids[1]
    dataset.Modality, dataset.InstanceNumber, dataset.SeriesNumber = "US", int(view), 1
    dataset.PatientName, dataset.PatientID = "PHANTOM^SYNTHETIC", f"PHANTOM-{case}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.AccessionNumber, dataset.StudyID = "", "O", "", case
    dataset.ReferringPhysicianName, dataset.ImageType = "", ["ORIGINAL", "PRIMARY", "", "0001"]
    chance = derive_seed(seed, "phantom", site, "date", case)
    dataset.StudyDate = f"2020{1 + chance % 12:02d}{1 + chance // 12 % 28:02d}"
    dataset.StudyTime = f"{8 + chance // 500 % 9:02d}{chance // 5000 % 60:02d}00"
    return dataset


def _region(left: int, top: int, size: int, spacing_cm: float) -> Dataset:
    """Item of SequenceOfUltrasoundRegions: 2D tissue; the corners are the first and last pixels that belong to it."""
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = left, top
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = left + size - 1, top + size - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = CENTIMETRES
    region.PhysicalDeltaX = region.PhysicalDeltaY = round(spacing_cm, 8)
    return region


@lru_cache(maxsize=8)
def _screen_without_scale(size: int, scanner: str) -> Picture:
    """Black, with a grey wedge at the left, lines of text above and a footer."""
    height, width = size + round(TOP * size) + round(BOTTOM * size), size + round(LEFT * size) + round(RIGHT * size)
    screen = Image.new("L", (width, height))
    pen = ImageDraw.Draw(screen)
    font = ImageFont.load_default(max(8, size // 18))
    pen.text((4, 1), f"{scanner}  SYNTHETIC PHANTOM", fill=200, font=font)
    pen.text((4, 1 + size // 15), "MI 1.1  TIs 0.2  12 MHz", fill=150, font=font)
    pen.text((4, height - size // 15), "no patient", fill=120, font=font)
    for step in range(size // 2):
        grey = 255 - 255 * step // (size // 2)
        pen.line((4, height // 4 + step, 4 + size // 24, height // 4 + step), fill=grey)
    return np.asarray(screen, np.uint8)


def _screen(size: int, spacing_cm: float, scanner: str) -> Picture:
    """The screen with a scale at the right: a tick each half centimetre of this picture's depth."""
    screen = _screen_without_scale(size, scanner).copy()
    top, scale = round(TOP * size), size + round(LEFT * size) + max(3, size // 40)
    for tick in range(int(size * spacing_cm * 2) + 1):
        row = min(top + round(tick * 0.5 / spacing_cm), screen.shape[0] - 1)
        screen[row, scale : scale + (size // 16 if tick % 2 == 0 else size // 32)] = 210
    return screen
