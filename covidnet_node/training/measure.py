"""Quick honest figures of a weights folder, through the node's own page.

A seed of `covidnet-node evaluate`: no intervals, no per-source figures yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy.stats import rankdata

from covidnet_node.analyze import Picture, analyze
from covidnet_node.case import Analysis, Outcome
from covidnet_node.imaging.prepare import mask_to_source, segmenter_input
from covidnet_node.intended_use import CLASSES
from covidnet_node.models.classify import vector
from covidnet_node.models.manifest import Metric
from covidnet_node.models.nets import LUNG_AND_HEART, LUNG_FIELD
from covidnet_node.models.networks import Networks
from covidnet_node.models.segment import lung_probabilities
from covidnet_node.training.dataset import LABELS, Film, Folder, Split, for_classes, with_masks

CHANNEL = {"lung-field": LUNG_FIELD, "lung+heart": LUNG_AND_HEART}


@dataclass(frozen=True, slots=True)
class _Told:
    """A film of known label and what the node said of it."""

    film: Film
    analysis: Analysis


def measure(data: Folder, networks: Networks, split: Split = Split.TEST) -> tuple[Metric, ...]:
    """Dice per outline convention, accuracy and AUC of three classes, answers given."""
    return (*_dice(data, networks, split), *_classes(data, networks, split))


def _dice(data: Folder, networks: Networks, split: Split) -> Iterator[Metric]:
    manifest = networks.manifest
    found: dict[str, list[float]] = {}
    for film in track(with_masks(data, split), "outlines"):
        display, reference = data.display(film), data.mask(film)
        square = segmenter_input(display, manifest.segmenter.side)
        both = lung_probabilities(networks.segmenter, square[None], networks.device)[0]
        channel = both[CHANNEL[film.mask_style]] >= manifest.lungs.threshold
        mask = mask_to_source(channel, reference.shape)
        total = int(mask.sum() + reference.sum())
        dice = 2 * int((mask & reference).sum()) / max(total, 1)
        found.setdefault(film.mask_style, []).append(dice)
    for style, values in sorted(found.items()):
        how = f"{split} split, mean over {len(values)} films, channel of that convention"
        yield Metric(f"Dice {style}", round(float(np.mean(values)), 4), f"{how}, film's own size")


def _classes(data: Folder, networks: Networks, split: Split) -> Iterator[Metric]:
    films = for_classes(data, split)
    told = [
        _Told(film, analyze(Picture(data.display(film), "", "", (), 0.0), networks))
        for film in track(films, "classes")
    ]
    answered = [each for each in told if each.analysis.probabilities is not None]
    concluded = [each for each in told if each.analysis.outcome is Outcome.ANALYZED]
    how = f"{split} split without kermany, {len(answered)} of {len(told)} films had lungs"
    share = len(concluded) / max(len(told), 1)
    yield _metric("share analyzed", share, f"{how}; the rest inconclusive or without lungs")
    if answered:
        yield from _accuracies(answered, concluded, how)
        yield from _areas(answered, f"{how}; labels follow sources")
        yield _energy(answered)


def _accuracies(answered: list[_Told], concluded: list[_Told], how: str) -> Iterator[Metric]:
    without = [each for each in answered if each.film.source != "nih"]
    nih = f"as above, without nih's text-mined labels, {len(without)} films"
    yield _metric("accuracy of 3 classes", _accuracy(answered), f"{how}; inconclusive included")
    yield _metric("accuracy of 3 classes without nih", _accuracy(without), nih)
    yield _metric(
        "accuracy of 3 classes where analyzed", _accuracy(concluded), f"{len(concluded)} films"
    )


def _areas(answered: list[_Told], how: str) -> Iterator[Metric]:
    """AUC of each class that is there and not alone."""
    truth = np.array([LABELS[each.film.label] for each in answered])
    said = np.array([_vector(each.analysis) for each in answered])
    for index, name in enumerate(CLASSES):
        if 0 < int((truth == index).sum()) < len(truth):
            value = _auc(said[:, index], truth == index)
            yield _metric(f"AUC {name} against the rest", value, how)


def _energy(answered: list[_Told]) -> Metric:
    seen = [each.analysis.explanation for each in answered]
    energy = float(np.mean([each.energy_in_lungs for each in seen if each is not None]))
    area = float(np.mean([each.analysis.lung_area_fraction or 0.0 for each in answered]))
    how = f"raw map, node's own outline, mean; lungs are {area:.2f} of the image"
    return _metric("heatmap energy in lungs", energy, how)


def _metric(name: str, value: float, measured: str) -> Metric:
    return Metric(name, round(value, 4), measured)


def _vector(analysis: Analysis) -> NDArray[np.float64]:
    assert analysis.probabilities is not None  # noqa: S101 - filtered by the caller
    return vector(analysis.probabilities)


def _accuracy(told: list[_Told]) -> float:
    right = [LABELS[each.film.label] == int(np.argmax(_vector(each.analysis))) for each in told]
    return float(np.mean(right)) if right else 0.0


def _auc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Mann-Whitney: how often a film of the class scores above one that is not; both exist."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(scores)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))
