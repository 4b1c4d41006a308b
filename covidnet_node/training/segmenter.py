"""Train the network that finds the lungs.

The data has two outline conventions: `lung-field` (lungs without the heart; Shenzhen) and
`lung+heart` (down the midline; Cohen). The network has one output channel for each, and each
learns its own style. What one style says of the other is used too: a pixel of the lung field
lies inside lung+heart, and a pixel outside lung+heart lies outside the lung field; about the
rest a film says nothing and no loss is taken. The node means the lung field.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from covidnet_node.imaging.prepare import segmenter_input
from covidnet_node.models.nets import LUNG_AND_HEART, LUNG_FIELD, build_segmenter, normalize
from covidnet_node.training import augment
from covidnet_node.training.begun import begin_segmenter
from covidnet_node.training.dataset import Film, Folder, Split, with_masks
from covidnet_node.training.loop import Batch, Task, fit, training_device
from covidnet_node.training.recipe import Recipe

CHANNEL = {"lung-field": LUNG_FIELD, "lung+heart": LUNG_AND_HEART}


def train_segmenter(data: Folder, runs: Path, minutes: float, recipe: Recipe) -> float:
    """Fit the segmenter into runs/segmenter; return the worse style's Dice on validation.

    Raises BadConfig if that was begun with other data or another recipe; so do all stages.
    """
    begin_segmenter(data, runs, recipe)
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    side, stage = recipe.segmenter.side, recipe.segmenter.stage
    place = training_device()
    train, val = (
        _load(data, with_masks(data, split), side, place) for split in (Split.TRAIN, Split.VAL)
    )
    task = Task(
        name="segmenter",
        network=build_segmenter(recipe.segmenter.architecture).to(place),
        batches=lambda epoch: _batches(train, stage.batch, recipe.seed + epoch),
        steps=max(1, len(train[0]) // stage.batch),
        loss=segmentation_loss,
        score=lambda network: min(dice_per_style(network, val)),
        seed=recipe.seed,
    )
    return fit(task, stage, minutes, runs / "segmenter")


def segmentation_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy where a film speaks, plus Dice in its own style."""
    images, masks, styles = batch
    logits = network(normalize(images))
    own = functional.one_hot(styles, 2).float()[:, :, None, None]
    inside = masks.expand(-1, 2, -1, -1)
    implied = torch.stack([1.0 - masks[:, 0], masks[:, 0]], 1)
    known = own + (1.0 - own) * implied
    entropy = functional.binary_cross_entropy_with_logits(logits, inside, reduction="none")
    entropy = (entropy * known).sum() / known.sum()
    guess = (torch.sigmoid(logits) * own).sum(1)
    overlap = 2 * (guess * masks[:, 0]).sum((1, 2)) + 1.0
    dice = overlap / (guess.sum((1, 2)) + masks.sum((1, 2, 3)) + 1.0)
    return entropy + (1.0 - dice).mean()


def dice_per_style(network: nn.Module, films: Batch) -> tuple[float, ...]:
    """Mean Dice per film, for every style present: lung-field first."""
    images, masks, styles = films
    found: dict[int, list[float]] = {}
    with torch.inference_mode():
        for start in range(0, len(images), 16):
            logits = network(normalize(images[start : start + 16].float() / 255))
            for index, guess in enumerate(logits > 0, start):
                style = int(styles[index])
                mask = masks[index, 0] > 127
                both = int(guess[style].sum() + mask.sum())
                dice = 2 * int((guess[style] & mask).sum()) / max(both, 1)
                found.setdefault(style, []).append(dice)
    return tuple(float(np.mean(found[style])) for style in sorted(found))


def _load(data: Folder, films: tuple[Film, ...], side: int, place: torch.device) -> Batch:
    """Images and masks (n, 1, side, side) as uint8, and each film's channel."""
    squares = [segmenter_input(data.display(film), side) for film in films]
    masks = [
        square.from_source(data.mask(film)) for film, square in zip(films, squares, strict=True)
    ]
    images = np.round(np.stack([square.image for square in squares]) * 255).astype(np.uint8)
    return (
        torch.from_numpy(images).unsqueeze(1).to(place),
        torch.from_numpy(np.stack(masks)).unsqueeze(1).to(place),
        torch.tensor([CHANNEL[film.mask_style] for film in films], device=place),
    )


def _batches(films: Batch, size: int, seed: int) -> Iterator[Batch]:
    """One epoch, shuffled and changed beyond what films of one source show."""
    images, masks, styles = films
    generator = Generator(images.device).manual_seed(seed)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    for start in range(0, max(1, len(order) // size) * size, size):
        chosen = order[start : start + size]
        stack = torch.cat([images[chosen], masks[chosen]], 1).float() / 255
        stack = augment.move(stack, 1.0, generator)
        picture, lungs = stack[:, :1], (stack[:, 1:] > 0.5).float()
        picture = augment.consolidate(picture, lungs, 0.3, generator)
        picture = augment.cover(picture, 0.4, generator)
        picture = augment.regrade(picture, generator)
        picture = augment.invert_some(picture, 0.15, generator)
        picture, lungs = augment.border(picture, lungs, 0.15, generator)
        yield picture, (lungs > 0.5).float(), styles[chosen]
