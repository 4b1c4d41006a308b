"""Train a member: pneumonia first, then the three classes.

Member A learns pneumonia on whole films, member B on lung crops, from the trunk that
selfsupervise.py has taught, if it has; the children's set goes no further. Both are then
fine-tuned on lung crops of adults. Every epoch draws labels alike and, within a label, sources by
the square root of their size, so that knowing the hospital helps less; style, texture, resolution
and outline are varied beyond what a source shows, and the style of features is exchanged between
films. Evidence beside the lungs is charged for, so that a heatmap shows lungs because the network
learned to use them, not because the rest was cut off the map.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from covidnet_node.models.nets import Classifier, build_classifier, normalize
from covidnet_node.training import augment
from covidnet_node.training.begun import begin_stage
from covidnet_node.training.crops import Crops, load_crops, squares
from covidnet_node.training.dataset import (
    LABELS,
    Film,
    Folder,
    Split,
    balanced_weights,
    for_classes,
    for_pretraining,
)
from covidnet_node.training.loop import Batch, Task, fit, training_device
from covidnet_node.training.mix_styles import mixed_styles
from covidnet_node.training.recipe import Recipe, Stage

TRUNK = "trunk."
HISTORY = "history.txt"
"""In a stage's folder: the stages whose trunk it started from, oldest first, one a line."""

PNEUMONIA = {"pneumonia": 0, "normal": 1}

OUTSIDE_COST = 0.5
"""Of evidence beside the lungs: all of it there costs this much cross-entropy."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What one stage learns from."""

    images: Tensor
    """(n, 1, side, side) uint8"""
    masks: Tensor
    """(n, 2, side, side) uint8, 0 or 255: what is not outside the lungs, and the lungs."""
    labels: Tensor
    weights: Tensor
    """How often each is drawn; sums to 1."""


def pretrain_member(data: Folder, runs: Path, name: str, minutes: float, recipe: Recipe) -> float:
    """Teach the trunk pneumonia against normal, into runs/pretrain-NAME; validation score.

    Starts from runs/selfsupervise-NAME if that is there, else from nothing.
    """
    member, crops = recipe.member(name), load_crops(runs)
    whole = member.pretrained_on == "whole"
    train, val = (
        _pictures(for_pretraining(data, split), crops, PNEUMONIA, whole=whole)
        for split in (Split.TRAIN, Split.VAL)
    )
    torch.manual_seed(recipe.seed)
    network = build_classifier(member.architecture, len(PNEUMONIA))
    folder = begin_stage(data, runs, "pretrain", name, recipe)
    restored = runs / f"selfsupervise-{name}"
    if (restored / "best.pt").exists():
        _start(network, restored, folder)
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
    folder = begin_stage(data, runs, "member", name, recipe)
    _start(network, runs / f"pretrain-{name}", folder)
    return _fit(network, train, val, recipe.classifier, minutes, folder, recipe)


def load_member(runs: Path, name: str, recipe: Recipe) -> Classifier:
    """A trained member, ready for inference."""
    network = build_classifier(recipe.member(name).architecture)
    network.load_state_dict(torch.load(runs / f"member-{name}" / "best.pt", weights_only=True))
    network.eval()
    return network


def was_self_supervised(runs: Path, name: str) -> bool:
    """Whether the member in runs/member-NAME really descends from a self-supervised trunk."""
    history = runs / f"member-{name}" / HISTORY
    return history.exists() and f"selfsupervise-{name}" in history.read_text().split()


def _start(network: Classifier, before: Path, folder: Path) -> None:
    """Begin with the trunk that `before` taught, and note the stages it comes from.

    A run that only goes on keeps the start it had: what is noted stays true.
    """
    if (folder / "checkpoint.pt").exists():
        return
    taught = torch.load(before / "best.pt", weights_only=True)
    network.trunk.load_state_dict(
        {key[len(TRUNK) :]: value for key, value in taught.items() if key.startswith(TRUNK)}
    )
    history = before / HISTORY
    earlier = history.read_text() if history.exists() else ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HISTORY).write_text(f"{earlier}{before.name}\n")


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
        network=network.to(training_device()),
        batches=lambda epoch: _batches(train, stage.batch, recipe.seed + epoch),
        steps=max(1, len(train.labels) // stage.batch),
        loss=_loss,
        score=lambda trained: _score(trained, val),
        seed=recipe.seed,
    )
    with mixed_styles(network):
        return fit(task, stage, minutes, folder)


def _pictures(
    films: tuple[Film, ...], crops: Crops, labels: dict[str, int], *, whole: bool
) -> Pictures:
    """The films that have a plausible crop."""
    place = training_device()
    found = squares(films, crops, place, whole=whole)
    return Pictures(
        found.images,
        found.masks,
        torch.tensor([labels[film.label] for film in found.films], device=place),
        torch.from_numpy(balanced_weights(found.films)).to(place),
    )


def _batches(pictures: Pictures, size: int, seed: int) -> Iterator[Batch]:
    """One epoch: drawn by weight, every film taken once more by another scanner."""
    generator = Generator(pictures.images.device).manual_seed(seed)
    count = max(size, len(pictures.labels) // size * size)
    drawn = torch.multinomial(pictures.weights, count, replacement=True, generator=generator)
    for chosen in torch.split(drawn, size):
        images, inside, lungs = augment.retake(
            pictures.images[chosen], pictures.masks[chosen], generator
        )
        images = augment.rescan(images, generator)
        if not bool(inside.all()):
            inside = augment.roughen(inside, generator)
        yield torch.where(inside, images, 0.5), lungs, pictures.labels[chosen]


def _loss(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy, and the share of the evidence that lies beside the lungs."""
    if not isinstance(network, Classifier):
        raise TypeError("only a classifier tells where its evidence lies")
    images, lungs, labels = batch
    logits, evidence = network.with_evidence(normalize(images))
    entropy = functional.cross_entropy(logits, labels, label_smoothing=0.05)
    return entropy + OUTSIDE_COST * share_outside(evidence, lungs)


def share_outside(evidence: Tensor, lungs: Tensor) -> Tensor:
    """Mean share of the evidence, for or against any class, beside the lungs; 0 to 1.

    `evidence` is (batch, classes, rows, columns), `lungs` (batch, 1, side, side) boolean.
    """
    within = functional.interpolate(lungs.float(), evidence.shape[-2:], mode="area")
    amount = evidence.abs()
    beside = (amount * (1.0 - within)).sum((2, 3))
    return (beside / amount.sum((2, 3)).clamp(min=1e-6)).mean()


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
