"""Pictures that may have been read or exported wrongly, told by what was measured of them: a second net, never a reason to refuse.

Measured on 447 crops of thyroid nodules and 1,500 of gallbladders, all read rightly: of being inverted none and about 1 % are
suspected, of lacking black none and about 1 %; of the same pictures inverted, 90 % and about 80 % are found.
"""

from collections.abc import Sequence

import numpy as np

from csasn.pictures.picture import FLOW, SLIVER
from csasn.pictures.picture_facts import ImageFacts

FEW_LEVELS = 32  # grey levels of 256
NO_BLACK = 80  # grey level below which not even a hundredth of the pixels lies
INVERTED = 90  # by how much nearer an inverted picture comes to the others, in grey levels over three percentiles
MOST_SLENDER = 4.0  # longer side over the shorter one
OTHER_ASPECT, RARE = 1.5, 0.1  # factor to the median aspect; share of images above which it is no exception but a second kind
COLOURFUL = 0.01  # share of pixels in colour
LEAST_OTHERS = 10  # images that the others have to be, before one can differ from them

KINDS = {  # what is suspected, and what to do
    "few grey levels": "look at these images in a viewer: were they exported with the wrong window or depth?",
    "no black": "look at these images in a viewer: were colours or window exported wrongly?",
    "inverted against the others": "look at these images in a viewer, and export them without inversion",
    "a sliver": "crop or export the whole B-mode picture",
    "of another aspect than the others": "were they stretched? export them at the scanner's own aspect",
    "colour over the B-mode": "name B-mode images of these cases without Doppler, elastography or colour",
}


def find_suspects(facts: Sequence[ImageFacts]) -> dict[str, np.ndarray]:
    """For each of KINDS whether an image is suspected of it, bool (N)."""
    found = (
        [image.num_levels < FEW_LEVELS for image in facts],
        [image.percentiles[0] >= NO_BLACK for image in facts],
        _inverted(facts),
        [_is_sliver(image) for image in facts],
        _other_aspect(facts),
        [image.colour_share > COLOURFUL or FLOW in image.notes for image in facts],
    )
    return {kind: np.asarray(suspected, bool) for kind, suspected in zip(KINDS, found, strict=True)}


def _inverted(facts: Sequence[ImageFacts]) -> np.ndarray:
    """Whether the percentiles 1, 50 and 99 would come clearly nearer to the medians of all images if the picture was inverted."""
    if len(facts) <= LEAST_OTHERS:
        return np.zeros(len(facts), bool)
    own_N3 = np.array([image.percentiles for image in facts])
    usual_3 = np.median(own_N3, axis=0)
    as_it_is, inverted = np.abs(own_N3 - usual_3).sum(1), np.abs(255 - own_N3[:, ::-1] - usual_3).sum(1)
    return np.asarray(as_it_is - inverted > INVERTED)


def _is_sliver(image: ImageFacts) -> bool:
    return SLIVER in image.notes or max(image.height, image.width) > MOST_SLENDER * min(image.height, image.width)


def _other_aspect(facts: Sequence[ImageFacts]) -> np.ndarray:
    aspect_N = np.log([image.width / image.height for image in facts])
    far_N = np.abs(aspect_N - np.median(aspect_N)) > np.log(OTHER_ASPECT)
    return np.asarray(far_N & (len(facts) > LEAST_OTHERS) & (far_N.mean() <= RARE))
