"""Profiles: which two networks of timm stand side by side, at which size. A study names one, and may name
other networks in their places.

Without torch, since the front asks how large a model is."""

from dataclasses import dataclass, replace

from csasn.platform.registry import NETWORKS, load
from csasn.recipe import Model

MIB = 1 << 20
NAMED_BYTES = 400 * MIB  # of a network that a study names itself: 100 million values


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
SMALL = Profile("tf_efficientnet_lite0", "vit_small_patch14_dinov2", 224, 100 * MIB)  # 224 = 7 x 32 = 16 x 14
LITE = Profile("tf_efficientnet_lite0", "vit_tiny_patch16_224", 96, 37 * MIB)
TEST = Profile("test_efficientnet", "test_vit", 64, 2 * MIB)


def profile_of(model: Model) -> Profile:
    """The profile that a study names, with the networks that the study itself puts in its places.

    Raises:
        ConfigurationError: see `load`.
    """
    profile = load(NETWORKS, model.profile, Profile)
    first, second = (name if isinstance(name, str) else None for name in (model.efficientnet, model.vit))
    more = NAMED_BYTES * sum(name is not None for name in (first, second))
    return replace(
        profile,
        efficientnet=first or profile.efficientnet,
        vit=second or profile.vit,
        weights_bytes=profile.weights_bytes + more,
    )


def branch_networks(model: Model) -> dict[str, str]:
    """The branches that are switched on, and the timm name of each."""
    profile = profile_of(model)
    return {branch: getattr(profile, branch) for branch in ("efficientnet", "vit") if getattr(model, branch)}


def image_size(model: Model) -> int:
    """Side of the input in pixels."""
    return model.image_size or profile_of(model).image_size
