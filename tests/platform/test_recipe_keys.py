"""Keys of how a site trains: those that say nothing change no hash, and what cannot be is refused."""

import pytest

from csasn.errors import ConfigurationError
from csasn.platform.configuration import validate
from csasn.study import Study

NEWER = {
    "augmentation": {"gain": 0.2, "depth_gain": 0.1, "speckle": 0.2, "shadow": 0.5, "blur": 1.0},
    "loss": {"label_smoothing": 0.1, "focal_gamma": 2.0, "ldam_margin": 0.5, "mixup": 0.2},
    "optimiser": {"warmup_rounds": 2, "layer_decay": 0.7},
    "model": {"test_flip": True},
}
OFF = {
    "augmentation": dict.fromkeys(NEWER["augmentation"], 0.0),
    "loss": dict.fromkeys(NEWER["loss"], 0.0),
    "optimiser": {"warmup_rounds": 0, "layer_decay": 1.0},
    "model": {"test_flip": False},
    "sampling": "plain",
}


def study(**changes):
    return validate(Study, {"name": "a", "classes": ["x", "y"], "federation": {"sites": ["b"]}} | changes, "study.yaml")


def test_a_study_from_before_these_keys_keeps_its_hash():
    before = study(federation={"sites": ["b"], "batchnorm": "silo"})  # the default then
    assert before.study_hash == "7f912786b0b0aed4dbb3df4841c4633461b2c3465416b683de00e5dd5566255e"
    assert study(**OFF).study_hash == study().study_hash


@pytest.mark.parametrize(("section", "key"), [(section, key) for section in NEWER for key in NEWER[section]])
def test_each_key_is_of_the_hash_where_it_says_something_and_is_read_again(section, key):
    chosen = study(**{section: {key: NEWER[section][key]}})
    assert chosen.study_hash != study().study_hash
    assert chosen.model_dump(mode="json")[section][key] == NEWER[section][key]
    assert validate(Study, chosen.model_dump(mode="json"), "study.yaml") == chosen


def test_balanced_sampling_is_of_the_hash_and_goes_with_one_image_of_a_case():
    assert study(sampling="balanced").study_hash != study().study_hash
    with pytest.raises(ConfigurationError, match="sampling balanced takes one image of a case"):
        study(sampling="balanced", images_per_case="all")


def test_warm_up_leaves_a_round_at_the_whole_rate():
    assert study(optimiser={"warmup_rounds": 9}).optimiser.warmup_rounds == 9
    with pytest.raises(ConfigurationError, match=r"optimiser\.warmup_rounds 10, expected fewer than the 10 rounds"):
        study(optimiser={"warmup_rounds": 10})
