"""Ask the shipped members about films whose lungs are gone: what they still know is a shortcut.

Outline, crop and gray scale come from the intact film, as the node makes them. Then

- black lungs: the lungs (as far as the node would show them to the members) are blacked out and
  everything else within the crop is *kept*: text, borders, arms, diaphragm, heart, devices;
- gray lungs: the same with mid-gray, a level to which members are used;
- silhouette: the outline alone, black lungs on mid-gray.

An AUC far from 0.5, on either side, says that the answer can be had without the lungs
(DeGrave et al. 2021; Maguolo & Nanni 2021).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from covidnet_node.case import CropRecipe
from covidnet_node.imaging.prepare import Crop, crop_lungs
from covidnet_node.models.classify import classify, vector
from covidnet_node.models.networks import Networks

BLACK, GRAY = 0.0, 0.5
_EVERYTHING = 2.0
"""A dilation, as a share of the crop's side, that keeps the whole crop."""


@dataclass(frozen=True, slots=True)
class WithoutLungs:
    """The ensemble's probabilities, in the order of intended_use.CLASSES."""

    black: tuple[float, ...]
    gray: tuple[float, ...]
    silhouette: tuple[float, ...]


def ask_without_lungs(
    networks: Networks, display: NDArray[np.uint8], lungs: NDArray[np.bool_], crop: Crop
) -> WithoutLungs:
    """Classify the film three times with its lungs gone."""
    pictures = blanked(display, lungs, crop, networks.manifest.crop)
    black, gray, silhouette = (
        tuple(map(float, vector(answer.probabilities))) for answer in classify(networks, pictures)
    )
    return WithoutLungs(black, gray, silhouette)


def blanked(
    display: NDArray[np.uint8], lungs: NDArray[np.bool_], crop: Crop, recipe: CropRecipe
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Black lungs, gray lungs and the silhouette, each (side, side), 0 to 1.

    `lungs` has the shape of `display`; `crop` is what crop_lungs made of both.
    """
    # The box and the gray scale do not depend on the dilation, so this is the same crop with
    # its outside left in.
    whole = crop_lungs(display, lungs, replace(recipe, dilation=_EVERYTHING)).image
    black, gray, silhouette = whole.copy(), whole.copy(), np.full_like(whole, GRAY)
    black[crop.inside] = BLACK
    gray[crop.inside] = GRAY
    silhouette[crop.inside] = BLACK
    return black, gray, silhouette
