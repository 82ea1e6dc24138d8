"""How a site trains: its network and where that begins, its optimiser, changes of its images, and of its loss. csasn/SPEC.md,
"Recipe", holds the equations. The text below a key is what `csasn study` says of it."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from csasn.platform.configuration import Configuration, Grown, Sha256
from csasn.platform.registry import CLASS_WEIGHTINGS, NETWORKS, check_branch, check_name

Positive = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0, le=1)]
# names that packages can add to
ClassWeightingName = Annotated[str, AfterValidator(partial(check_name, CLASS_WEIGHTINGS))]
NetworkName = Annotated[str, AfterValidator(partial(check_name, NETWORKS))]
Branch = Annotated[bool | str, PlainValidator(check_branch)]


class BranchWeights(Configuration):
    """Where a branch starts; of the coordinator alone."""

    source: Literal["random", "package", "file", "hub"] = "random"
    """random; an installed Python package; a safetensors file; timm's hub. Unless written, the coordinator settles it by what is
    installed there, before anybody is asked"""
    path: str | None = None
    """the file, with source file alone"""
    sha256: Sha256 | None = None
    """SHA-256 of the file, in hexadecimal digits: another file is refused"""

    @model_validator(mode="after")
    def _file_is_named_and_hashed(self) -> Self:
        if self.source == "file" and not (self.path and self.sha256):
            raise ValueError("source file needs path and sha256")
        if self.source != "file" and self.path:
            raise ValueError(f"path goes with source file, not with {self.source}")
        return self


class InitialWeights(Configuration):
    """Initial weights of the two branches; everything behind them starts random from the study's seed."""

    efficientnet: BranchWeights = BranchWeights()
    """where the branch efficientnet begins"""
    vit: BranchWeights = BranchWeights()
    """where the branch vit begins"""


class Model(Grown):
    """CSASN and its switches; each switched-off part is an ablation of the paper.

    Which sizes of images a network takes shows where it is built (csasn/model/backbones.py).
    """

    newer: ClassVar[Mapping[str, object]] = {"test_flip": False}
    profile: NetworkName = "csasn-lite"
    """the networks of both branches, and how what is behind them is made (csasn/model/profiles.py)"""
    image_size: Annotated[int, Field(ge=32, le=512)] | None = None
    """pixels of a side of the square that the network sees; null: the profile's"""
    efficientnet: Branch = True
    """the branch of convolutions: true: the profile's network, false: none, or any network of timm by its name"""
    vit: Branch = True
    """the branch of a vision transformer, likewise"""
    channel_attention: bool = True
    """attention over channels"""
    spatial_attention: bool = True
    """attention over places of the image"""
    attention_residual: bool = True
    """what attention changes is added to what it saw"""
    multiscale: bool = True
    """the classifier has branches of several widths"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """share of values that training leaves out before the classifier"""
    frozen: tuple[Literal["efficientnet", "vit"], ...] = ()
    """branches that keep their initial weights and statistics. Where nothing changes the images, or augmentation.frozen_views says
    how many changed ones there are, each site computes their maps once"""
    initial_weights: InitialWeights = InitialWeights()
    test_flip: bool = False
    """logits of the finished model are the mean over an image and its mirror"""

    @model_validator(mode="after")
    def _some_branch(self) -> Self:
        if not (self.efficientnet or self.vit):
            raise ValueError("efficientnet and vit are both off: the model has no branch left")
        return self


class Optimiser(Grown):
    """The optimiser of local training, anew in each round; the schedule runs over rounds (csasn/learning/rates.py)."""

    newer: ClassVar[Mapping[str, object]] = {"kind": "adamw", "warmup_rounds": 0, "layer_decay": 1.0}
    kind: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD without momentum"""
    learning_rate: Positive = 1e-3
    """the learning rate at its highest"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    """decoupled weight decay"""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """images of a step; micro_batch of the site file says how many are in memory at once"""
    schedule: Literal["constant", "cosine"] = "cosine"
    """how the rate falls over the rounds"""
    warmup_rounds: Annotated[int, Field(ge=0, lt=10_000)] = 0
    """first rounds, in which the rate rises evenly"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """a layer of a branch learns at this times the rate of the layer behind it; all behind the branches at the whole rate"""


class Augmentation(Grown):
    """Random changes of a training image. None changes the aspect: taller-than-wide is a sign of cancer.

    Those from gain to blur are what scanners differ in, each drawn for each image; grey values are 0 to 1.
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
    """left and right change places in half of the images"""
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.06
    """largest shift, as a share of the side"""
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """largest change of size, as a share"""
    rotation_deg: Annotated[float, Field(ge=0, le=45)] = 5.0
    """largest rotation, either way"""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """largest change of contrast, as a share"""
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """largest change of grey values"""
    gain: Strength = 0.0
    """a curve grey^exp(g), g within plus and minus this"""
    depth_gain: Strength = 0.0
    """a curve over depth that adds grey values of at most this, either way"""
    speckle: Strength = 0.0
    """noise whose standard deviation is at most this share of the grey value"""
    shadow: Strength = 0.0
    """share of grey at most lost in a band below a random depth, in half of the images"""
    blur: Annotated[float, Field(ge=0, le=8)] = 0.0
    """Gaussian blur: largest standard deviation, in pixels of the network's input"""
    frozen_views: Annotated[int, Field(ge=0, le=64)] = 0
    """each training image is changed that many times at the beginning, every other time as its mirror image, and training takes
    one of these at random, so that frozen branches see each once; flips alone have two views. 0: changed anew each time"""

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
    """Changes of the loss of each image; all of them at once are possible."""

    newer: ClassVar[Mapping[str, object]] = {"label_smoothing": 0.0, "focal_gamma": 0.0, "ldam_margin": 0.0, "mixup": 0.0}
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """share of a label that is spread over all values (Szegedy et al., CVPR 2016, section 7)"""
    focal_gamma: Annotated[float, Field(ge=0, le=5)] = 0.0
    """exponent of (1 - p) before the cross-entropy (Lin et al., ICCV 2017, eq. 4)"""
    ldam_margin: Annotated[float, Field(ge=0, le=10)] = 0.0
    """margin of the rarest class, in logits, on subtype and malignancy (Cao et al., NeurIPS 2019, eq. 13)"""
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """α of the Beta distribution of the shares in which two images of a batch are mixed (Zhang et al., ICLR 2018, eq. 1)"""


class Split(Configuration):
    """Shares of the patients of each class where the manifest names no split; the rest trains."""

    validation: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """share on which rounds are compared"""
    test: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """share on which the finished model is measured"""


class ClassWeighting(Configuration):
    """The global class weighting: csasn/SPEC.md, "Class weighting"."""

    mode: ClassWeightingName = "dynamic"
    """dynamic: weights follow what is missed; static: by the prior alone; balanced: by numbers of cases; none"""
    acts_on: Literal["decision", "loss"] = "decision"
    """on the decision it moves logits after training and leaves training alone; on the loss it weights images and moves
    logits there"""
    tau: Annotated[float, Field(ge=0, le=2)] = 0.5
    """how much of the prior, by which some classes are more frequent, is taken out of the decision: 0 nothing, 1 all of it"""
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """of mode balanced: how slowly a class's weight falls with its cases"""
