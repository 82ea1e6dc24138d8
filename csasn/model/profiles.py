"""Profiles: which two networks of timm stand side by side, at which size. A study names one.

Without torch, since the front asks how large a model is."""

from dataclasses import dataclass

from csasn.platform.registry import NETWORKS, load
from csasn.study import Model

MIB = 1 << 20


@dataclass(frozen=True)
class Profile:
    """A size of CSASN: timm names of the two branches, side of the input in pixels, the most bytes of its weights in float32,
    widths and features of the classifier.

    Keys of the study call the branches `efficientnet` and `vit`, whatever family stands there: the map of the first has the size to
    which that of the second is pooled.
    """

    efficientnet: str
    vit: str
    image_size: int
    weights_bytes: int
    widths: tuple[int, ...] = (128, 64, 32)
    num_features: int = 64


B2_VITB = Profile("efficientnet_b2", "vit_base_patch16_224", 224, 362 * MIB)
LITE = Profile("tf_efficientnet_lite0", "vit_tiny_patch16_224", 96, 37 * MIB)
TEST = Profile("test_efficientnet", "test_vit", 64, 2 * MIB)


def profile_of(model: Model) -> Profile:
    """The profile that a study names.

    Raises:
        ConfigurationError: see `load`.
    """
    return load(NETWORKS, model.profile, Profile)


def image_size(model: Model) -> int:
    """Side of the input in pixels."""
    return model.image_size or profile_of(model).image_size
