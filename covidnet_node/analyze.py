"""The medicine on one page: an image becomes an answer.

look → segment → crop → classify → explain → say how sure. Every way out is an Analysis: what
cannot be read or trusted is answered "not analyzed" or "inconclusive", never left silent.
"""

from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from covidnet_node.case import Analysis, Explanation, Outcome, Reason
from covidnet_node.errors import NotAnalyzed
from covidnet_node.explain.gradcam import Viewpoint, energy_in_lungs, grad_cam
from covidnet_node.imaging.prepare import Crop, crop_lungs, segmenter_input
from covidnet_node.intended_use import CLASSES
from covidnet_node.look import Picture, not_analyzed
from covidnet_node.models.classify import Classification, classify, input_tensor
from covidnet_node.models.manifest import Manifest
from covidnet_node.models.networks import Networks, memory_verdict
from covidnet_node.models.segment import segment

INVERTED = "The film was shown as its negative; it was analyzed with its contrast turned back."


def analyze(picture: Picture, networks: Networks) -> Analysis:
    """Answer one image.

    Raises RetryLater when the device is out of memory; everything else is an answer.
    """
    try:
        return _analyze(picture, networks)
    except NotAnalyzed as verdict:
        return not_analyzed(verdict.reason, verdict.detail, picture)


def _analyze(picture: Picture, networks: Networks) -> Analysis:
    manifest, display = networks.manifest, picture.display
    watch = _Watch(picture.seconds)
    square = segmenter_input(display, manifest.segmenter.side)
    found = segment(networks, square.image)
    watch.lap("segment")
    if not found.plausible:
        raise NotAnalyzed(Reason.NO_PLAUSIBLE_LUNGS, found.remark)
    lungs = square.to_source(found.mask)
    crop = crop_lungs(display, lungs, manifest.crop)
    answer = classify(networks, [crop.image])[0]
    watch.lap("classify")
    explanation = _explain(networks, crop, answer, lungs)
    watch.lap("explain")
    reason, detail = _doubt(answer, manifest)
    return Analysis(
        outcome=Outcome.INCONCLUSIVE if reason else Outcome.ANALYZED,
        reason=reason,
        detail=detail,
        display=display,
        lungs=lungs,
        lung_area_fraction=float(lungs.mean()),
        probabilities=answer.probabilities,
        members=answer.members,
        disagreement=answer.disagreement,
        out_of_distribution=answer.out_of_distribution,
        explanation=explanation,
        notes=(*picture.notes, INVERTED) if crop.inverted else picture.notes,
        seconds=watch.total(),
    )


def _explain(
    networks: Networks, crop: Crop, answer: Classification, lungs: NDArray[np.bool_]
) -> Explanation:
    """Where the ensemble looked for the class that is called, over the whole source image.

    A member counts by its weight and by how much it believes in that class.
    """
    target = answer.probabilities.called(networks.manifest.ensemble.covid19_threshold)
    views = [
        Viewpoint(network, network.trunk, entry.weight * said.probabilities.of(target))
        for network, entry, said in zip(
            networks.members, networks.manifest.members, answer.members, strict=True
        )
    ]
    image = input_tensor(crop.image[None], networks.device)
    with memory_verdict():
        raw = grad_cam(views, image, CLASSES.index(target))
    heatmap = crop.to_source(raw)
    return Explanation(heatmap, target, energy_in_lungs(heatmap, lungs))


def _doubt(answer: Classification, manifest: Manifest) -> tuple[Reason | None, str]:
    """Why there is no conclusion; far from the training data outranks what was then said."""
    ensemble, score = manifest.ensemble, answer.out_of_distribution
    if score > manifest.distance.limit:
        words = f"score {score:.3f}, limit {manifest.distance.limit:.3f}"
        return Reason.OUT_OF_DISTRIBUTION, words
    if answer.disagreement > ensemble.most_disagreement:
        words = f"disagreement {answer.disagreement:.2f}, limit {ensemble.most_disagreement:.2f}"
        return Reason.MEMBERS_DISAGREE, words
    called = answer.probabilities.called(ensemble.covid19_threshold)
    confidence = answer.probabilities.of(called)
    if confidence < ensemble.least_confidence:
        words = f"{called} {confidence:.2f}, needed {ensemble.least_confidence:.2f}"
        return Reason.LOW_CONFIDENCE, words
    return None, ""


class _Watch:
    """Seconds per stage."""

    def __init__(self, decoding: float) -> None:
        self._laps = {"decode": decoding}
        self._last = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self._laps[stage] = now - self._last
        self._last = now

    def total(self) -> dict[str, float]:
        return self._laps | {"total": sum(self._laps.values())}
