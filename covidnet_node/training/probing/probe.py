"""A small fresh network, taught one question from one sight of the films, resumable.

Five strided convolutions, 0.35 million weights: no torchvision architecture, because a dozen of
them are taught here, and this one takes some two milliseconds an image on one CPU core.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from covidnet_node.models.nets import normalize
from covidnet_node.training.loop import Batch, Task, fit
from covidnet_node.training.probing.sights import Shown, plain, vary
from covidnet_node.training.recipe import Stage

STAGE = Stage(batch=64, epochs=60, learning_rate=2e-3, weight_decay=1e-2)
"""The epochs are an upper limit: the minutes may end a probe before."""

WIDTHS = (24, 48, 96, 128, 160)

AT_ONCE = 64
"""Films asked about together."""

DRAW = 7
"""Seed of the style that measured films get, where style is varied."""


class Probe(nn.Module):
    """Five strided convolutions, the mean over places, one linear layer."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((1, *WIDTHS), WIDTHS, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(WIDTHS[-1], answers)

    def forward(self, images: Tensor) -> Tensor:
        """Normalized squares (batch, 1, side, side) to logits (batch, answers)."""
        maps: Tensor = self.layers(images)
        logits: Tensor = self.head(self.dropout(maps.mean(dim=(2, 3))))
        return logits


@dataclass(frozen=True, slots=True)
class Plan:
    """How a probe is to be taught."""

    minutes: float
    seed: int
    stage: Stage = STAGE


@dataclass(frozen=True, slots=True)
class Side:
    """Films of one side of a division, with the answers and how much each counts."""

    shown: Shown
    truth: Tensor
    """(n,) int64"""
    weights: Tensor
    """(n,) positive."""


@dataclass(frozen=True, slots=True)
class Teaching:
    """How a probe was taught."""

    epochs: int
    kept: int
    """The epoch, counted from 1, that did best on the picking films."""
    minutes: float
    learned: int
    """Films."""
    picked: int
    """Films on which the epoch was picked; never among those measured."""


def teach(
    learn: Side, pick: Side, answers: int, folder: Path, plan: Plan
) -> tuple[nn.Module, Teaching]:
    """Teach a probe in `folder`, or go on where it stopped; the network is ready to be asked."""
    torch.manual_seed(plan.seed)
    size = min(plan.stage.batch, len(learn.truth))
    task = Task(
        name=folder.name,
        network=Probe(answers).to(learn.truth.device),
        batches=lambda epoch: _batches(learn, size, plan.seed + epoch),
        steps=max(1, len(learn.truth) // size),
        loss=_loss,
        score=lambda taught: _score(taught, pick),
        seed=plan.seed,
    )
    fit(task, plan.stage, plan.minutes, folder)
    epochs, kept, used = _curve(folder)
    taught = Teaching(epochs, kept, used, len(learn.truth), len(pick.truth))
    return task.network.eval(), taught


def ask(network: nn.Module, shown: Shown) -> NDArray[np.float64]:
    """(n, answers): probabilities. Style, where varied, is the same each time."""
    place = shown.images.device
    generator = Generator(place).manual_seed(DRAW)
    # Shuffled, because a varied style takes amplitudes from within the batch, and films of one
    # source lie side by side.
    order = torch.randperm(len(shown.films), generator=generator, device=place)
    said = []
    with torch.inference_mode():
        for rows in torch.split(order, AT_ONCE):
            logits = network(normalize(plain(shown, rows, generator)))
            said.append(torch.softmax(logits.double(), dim=1))
    found: NDArray[np.float64] = torch.cat(said)[torch.argsort(order)].cpu().numpy()
    return found


def _batches(learn: Side, size: int, seed: int) -> Iterator[Batch]:
    """One epoch, drawn by weight."""
    generator = Generator(learn.truth.device).manual_seed(seed)
    count = len(learn.truth) // size * size
    drawn = torch.multinomial(learn.weights, count, replacement=True, generator=generator)
    for rows in torch.split(drawn, size):
        yield vary(learn.shown, rows, generator), learn.truth[rows]


def _loss(network: nn.Module, batch: Batch) -> Tensor:
    images, truth = batch
    return functional.cross_entropy(network(normalize(images)), truth)


def _score(network: nn.Module, pick: Side) -> float:
    """Mean probability given to the truth, every film by its weight."""
    said = ask(network, pick.shown)
    truth, weights = pick.truth.cpu().numpy(), pick.weights.cpu().numpy()
    return float(np.average(said[np.arange(len(truth)), truth], weights=weights))


def _curve(folder: Path) -> tuple[int, int, float]:
    """Epochs, the one kept and minutes, from what the loop recorded."""
    with (folder / "curve.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    return len(rows), int(np.argmax(scores)) + 1, float(rows[-1]["seconds"]) / 60
