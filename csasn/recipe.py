"""How a site trains: its optimiser, changes of its images, and of its loss. csasn/SPEC.md, "Recipe", holds the equations."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from csasn.platform.configuration import Configuration, Grown
from csasn.platform.registry import CLASS_WEIGHTINGS, check_name

Positive = Annotated[float, Field(gt=0)]
ClassWeightingName = Annotated[str, AfterValidator(partial(check_name, CLASS_WEIGHTINGS))]
Strength = Annotated[float, Field(ge=0, le=1)]


class Optimiser(Grown):
    """AdamW, or SGD without momentum, anew in each round; the schedule runs over rounds, after `warmup_rounds` in which the rate
    rises evenly.

    Each layer of a branch learns at `layer_decay` times the rate of the layer behind it, all that is behind the branches at the
    whole rate (csasn/learning/rates.py).
    """

    newer: ClassVar[Mapping[str, object]] = {"kind": "adamw", "warmup_rounds": 0, "layer_decay": 1.0}
    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_rounds: Annotated[int, Field(ge=0, lt=10_000)] = 0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


class Augmentation(Grown):
    """Random changes of a training image. None changes the aspect: taller-than-wide is a sign of cancer.

    The newer ones are what scanners differ in, each drawn for each image; grey values are 0..1. `gain`: a curve grey^exp(g), g
    within ± this. `depth_gain`: a curve over depth that adds grey values of at most ± this. `speckle`: noise whose standard
    deviation is at most this share of the grey value. `shadow`: the share of grey at most lost in a band below a random depth, in
    half of the images. `blur`: Gaussian, the largest standard deviation in pixels of the network's input.

    With `frozen_views` each training image is changed that many times at the beginning, every other time as its mirror image, and
    training takes one of these at random: frozen branches then see each once. Flips alone have two views, the image and its mirror.
    """

    newer: ClassVar[Mapping[str, object]] = {
        "gain": 0.0,
        "depth_gain": 0.0,
        "speckle": 0.0,
        "shadow": 0.0,
        "blur": 0.0,
        "frozen_views": 0,
    }
    flip: bool = True
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    rotation_deg: Annotated[float, Field(ge=0, le=45)] = 5.0
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gain: Strength = 0.0
    depth_gain: Strength = 0.0
    speckle: Strength = 0.0
    shadow: Strength = 0.0
    blur: Annotated[float, Field(ge=0, le=8)] = 0.0
    frozen_views: Annotated[int, Field(ge=0, le=64)] = 0

    @property
    def changes_images(self) -> bool:
        """Whether anything is switched on."""
        moved = self.flip or any((self.shift, self.scale, self.rotation_deg, self.contrast, self.brightness))
        return moved or self.changes_scanner

    @property
    def changes_scanner(self) -> bool:
        """Whether any of the newer changes is switched on."""
        return any((self.gain, self.depth_gain, self.speckle, self.shadow, self.blur))


class Loss(Grown):
    """Changes of the loss of each image; all of them at once are possible.

    `label_smoothing`: the share of a label that is spread over all values (Szegedy et al., CVPR 2016, section 7). `focal_gamma`:
    the exponent of (1 - p) before the cross-entropy (Lin et al., ICCV 2017, eq. 4). `ldam_margin`: of the rarest class, in logits
    (Cao et al., NeurIPS 2019, eq. 13), on subtype and malignancy. `mixup`: α of the Beta distribution of the shares in which two
    images of a batch are mixed (Zhang et al., ICLR 2018, eq. 1).
    """

    newer: ClassVar[Mapping[str, object]] = {"label_smoothing": 0.0, "focal_gamma": 0.0, "ldam_margin": 0.0, "mixup": 0.0}
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    focal_gamma: Annotated[float, Field(ge=0, le=5)] = 0.0
    ldam_margin: Annotated[float, Field(ge=0, le=10)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0


class Split(Configuration):
    """Shares of the patients of each class where the manifest names no split; the rest trains."""

    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    test: Annotated[float, Field(ge=0, lt=0.5)] = 0.2


class ClassWeighting(Configuration):
    """The global class weighting: csasn/SPEC.md, "Class weighting".

    On the decision it moves logits after training and leaves training alone; on the loss it weights images and moves logits there.
    """

    mode: ClassWeightingName = "dynamic"
    acts_on: Literal["decision", "loss"] = "decision"
    tau: Annotated[float, Field(ge=0, le=2)] = 0.5
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
