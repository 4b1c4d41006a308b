"""Train a member: pneumonia first, then the three classes.

Member A learns pneumonia on whole films, member B on lung crops; the children's set takes part
in that and in nothing else. Both are then fine-tuned on lung crops of adults. Every epoch draws
labels alike and, within a label, sources alike, so that knowing the hospital helps less.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from covidnet_node.models.nets import Classifier, build_classifier, normalize
from covidnet_node.training import augment
from covidnet_node.training.crops import Crops, load_crops
from covidnet_node.training.dataset import (
    LABELS,
    Film,
    Folder,
    Split,
    balanced_weights,
    for_classes,
    for_pretraining,
)
from covidnet_node.training.loop import Batch, Task, fit
from covidnet_node.training.recipe import Recipe, Stage

PNEUMONIA = {"pneumonia": 0, "normal": 1}


@dataclass(frozen=True, slots=True)
class Pictures:
    """What one stage learns from."""

    images: Tensor
    """(n, 1, side, side) uint8"""
    inside: Tensor
    """(n, 1, side, side) uint8, 0 or 255: what is not outside the lungs."""
    labels: Tensor
    weights: Tensor
    """How often each is drawn; sums to 1."""


def pretrain_member(data: Folder, runs: Path, name: str, minutes: float, recipe: Recipe) -> float:
    """Teach the trunk pneumonia against normal, into runs/pretrain-NAME; validation score."""
    member, crops = recipe.member(name), load_crops(runs)
    whole = member.pretrained_on == "whole"
    train, val = (
        _pictures(for_pretraining(data, split), crops, PNEUMONIA, whole=whole)
        for split in (Split.TRAIN, Split.VAL)
    )
    torch.manual_seed(recipe.seed)
    network = build_classifier(member.architecture, len(PNEUMONIA))
    folder = runs / f"pretrain-{name}"
    return _fit(network, train, val, recipe.pretrain, minutes, folder, recipe)


def train_member(data: Folder, runs: Path, name: str, minutes: float, recipe: Recipe) -> float:
    """Fine-tune into the three classes, into runs/member-NAME; validation score.

    Starts from runs/pretrain-NAME, which must be there.
    """
    member, crops = recipe.member(name), load_crops(runs)
    train, val = (
        _pictures(for_classes(data, split), crops, LABELS, whole=False)
        for split in (Split.TRAIN, Split.VAL)
    )
    torch.manual_seed(recipe.seed)
    network = build_classifier(member.architecture)
    taught = torch.load(runs / f"pretrain-{name}" / "best.pt", weights_only=True)
    trunk = {key: value for key, value in taught.items() if not key.startswith("head.")}
    network.load_state_dict(trunk, strict=False)
    folder = runs / f"member-{name}"
    return _fit(network, train, val, recipe.classifier, minutes, folder, recipe)


def load_member(runs: Path, name: str, recipe: Recipe) -> Classifier:
    """A trained member, ready for inference."""
    network = build_classifier(recipe.member(name).architecture)
    network.load_state_dict(torch.load(runs / f"member-{name}" / "best.pt", weights_only=True))
    network.eval()
    return network


def _fit(
    network: Classifier,
    train: Pictures,
    val: Pictures,
    stage: Stage,
    minutes: float,
    folder: Path,
    recipe: Recipe,
) -> float:
    torch.set_num_threads(recipe.threads)
    task = Task(
        name=folder.name,
        network=network,
        batches=lambda epoch: _batches(train, stage.batch, recipe.seed + epoch),
        steps=max(1, len(train.labels) // stage.batch),
        loss=_loss,
        score=lambda trained: _score(trained, val),
    )
    return fit(task, stage, minutes, folder)


def _pictures(
    films: tuple[Film, ...], crops: Crops, labels: dict[str, int], *, whole: bool
) -> Pictures:
    """The films that have a plausible crop."""
    rows = {name: row for row, name in enumerate(crops.ids)}
    kept = tuple(film for film in films if f"{film.source}/{film.id}" in rows)
    chosen = [rows[f"{film.source}/{film.id}"] for film in kept]
    inside: NDArray[np.bool_] = crops.inside[chosen]
    if whole:
        inside = np.ones_like(inside)
    return Pictures(
        torch.from_numpy((crops.whole if whole else crops.lungs)[chosen]).unsqueeze(1),
        torch.from_numpy(inside.astype(np.uint8) * 255).unsqueeze(1),
        torch.tensor([labels[film.label] for film in kept]),
        torch.from_numpy(balanced_weights(kept)),
    )


def _batches(pictures: Pictures, size: int, seed: int) -> Iterator[Batch]:
    """One epoch: drawn by weight, moved and regraded, the outside put back to mid-gray."""
    generator = Generator().manual_seed(seed)
    count = max(size, len(pictures.labels) // size * size)
    drawn = torch.multinomial(pictures.weights, count, replacement=True, generator=generator)
    for start in range(0, count, size):
        chosen = drawn[start : start + size]
        stack = torch.cat([pictures.images[chosen], pictures.inside[chosen]], 1).float() / 255
        stack = augment.move(stack, 0.7, generator)
        images = augment.regrade(stack[:, :1], generator)
        yield torch.where(stack[:, 1:] > 0.5, images, 0.5), pictures.labels[chosen]


def _loss(network: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return functional.cross_entropy(network(normalize(images)), labels, label_smoothing=0.05)


def _score(network: nn.Module, pictures: Pictures) -> float:
    """Mean probability given to the truth, weighted as in training; 1/classes is chance.

    Not the cross-entropy: calibration comes later, and until then one film that a network is
    wrongly sure of must not outweigh a hundred that it learned to tell apart.
    """
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(pictures.labels), 64):
            part = slice(start, start + 64)
            logits = network(normalize(pictures.images[part].float() / 255))
            chosen = torch.softmax(logits, 1).gather(1, pictures.labels[part, None])[:, 0]
            total += float((chosen * pictures.weights[part]).sum())
    return total
