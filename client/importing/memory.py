"""DICOM objects as files in memory: what an archive hands out never touches the disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian


@contextmanager
def file_in_memory(dataset: pydicom.Dataset) -> Iterator[Path]:
    """A path to the object while the block lasts, also for child processes.

    A bare one gets the file header that it lacks, with its syntax as far as its elements tell.
    """
    if not getattr(dataset, "file_meta", None):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if dataset.original_encoding[0] else ExplicitVRLittleEndian
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            dataset.save_as(file, enforce_file_format=True)
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
