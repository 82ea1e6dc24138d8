"""What a result depends on beside its study: the code that learns and scores, and the sites' data. Each becomes a short hash."""

import ast
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import csasn
from csasn import __version__
from csasn.errors import DataError
from csasn.site import Site

LEARNING = (
    "central.py", "evaluation.py", "loss.py", "normalisation.py", "randomness.py", "training.py", "weighting.py",
    "data/augmentation.py", "data/cases.py", "data/images.py", "data/split.py",
    "federated/aggregate.py", "federated/quantise.py",
    "model/attention.py", "model/backbones.py", "model/heads.py", "model/initial_weights.py", "model/network.py", "model/state.py",
)  # fmt: skip
LENGTH = 12


@lru_cache
def code_version() -> str:
    """The version, and a hash of the modules that decide what is learned and how a case is scored.

    Comments, docstrings and layout do not count. What only calls these modules, in server, client and here, is not hashed.
    """
    folder = Path(csasn.__file__).parent
    digest = hashlib.sha256()
    for name in LEARNING:
        digest.update(f"{name}\n{_bare((folder / name).read_text(encoding='utf-8'))}\n".encode())
    return f"{__version__}+{digest.hexdigest()[:LENGTH]}"


def data_hash(sites: Mapping[str, Site]) -> str:
    """Of manifests, and of names and sizes of pictures, in the order of the sites.

    Raises:
        DataError: a manifest or a folder of images cannot be read.
    """
    digest = hashlib.sha256()
    for name, site in sites.items():
        try:
            manifest = hashlib.sha256(Path(site.manifest).read_bytes()).hexdigest()
            files = sorted((path.name, path.stat().st_size) for path in Path(site.images).iterdir() if path.is_file())
        except OSError as error:
            raise DataError(
                f"{name}: manifest.csv or the folder of images cannot be read: {str(error.strerror).lower()}",
                "is it where the site file says, or has the phantom to be drawn first?",
            ) from error
        digest.update(f"{name}\n{manifest}\n{files}\n".encode())
    return digest.hexdigest()[:LENGTH]


def _bare(source: str) -> str:
    """Python without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
