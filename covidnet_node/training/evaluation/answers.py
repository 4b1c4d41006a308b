"""Run the node's own page over films, one at a time, and keep what the figures need.

What was answered is kept in a file, one line a film, so that a long run that was stopped goes on.
A line counts only for the same picture, outline, weights and program.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

import covidnet_node
from covidnet_node.analyze import analyze
from covidnet_node.case import Analysis, Outcome
from covidnet_node.errors import NotAnalyzed
from covidnet_node.explain.gradcam import energy_in_lungs
from covidnet_node.imaging.picture import open_picture
from covidnet_node.imaging.prepare import (
    crop_lungs,
    lung_box,
    resize,
    scale_mask,
    segmenter_input,
)
from covidnet_node.look import look_at_picture, not_analyzed
from covidnet_node.models.classify import vector
from covidnet_node.models.nets import LUNG_AND_HEART, LUNG_FIELD
from covidnet_node.models.networks import Networks
from covidnet_node.models.segment import lung_probabilities
from covidnet_node.training.evaluation.exams import Exam
from covidnet_node.training.evaluation.occlusion import Occlusion, occlude
from covidnet_node.training.evaluation.outlines import Overlap, overlap
from covidnet_node.training.evaluation.shortcuts import WithoutLungs, ask_without_lungs

CHANNEL = {"lung-field": LUNG_FIELD, "lung+heart": LUNG_AND_HEART}
_MEASURES = ("answers.py", "occlusion.py", "outlines.py", "shortcuts.py")
_ROOMS = ("imaging", "models", "explain")


@dataclass(frozen=True, slots=True)
class Heat:
    """Where the raw heatmap's sum lies, beside what a map without aim would have by area.

    The members see the crop alone, so a map without aim is spread over the crop, not the film.
    """

    own: float
    """Inside the node's own outline, 0 to 1."""
    own_area: float
    """That outline's share of the film."""
    own_area_of_crop: float
    """That outline's share of the crop."""
    reference: float | None
    """Inside the reference outline; None without one, as the next two."""
    reference_area: float | None
    reference_area_of_crop: float | None


@dataclass(frozen=True, slots=True)
class Outlines:
    """The segmenter against the reference of one film."""

    channel: Overlap
    """The network's channel of the reference's convention, thresholded, nothing cleaned."""
    shipped: Overlap | None
    """The outline that the node used; None if it found none plausible. It means the lung field."""
    annotators: Overlap | None = None
    """A second annotator against the first: no network can be expected to agree much better."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node said of one film, and what was measured on the way."""

    key: str
    outcome: Outcome
    reason: str
    detail: str
    said: tuple[float, ...] | None = None
    """Probabilities in the order of intended_use.CLASSES; None without an answer."""
    members: tuple[tuple[float, ...], ...] = ()
    """The same of each member, in the manifest's order."""
    distance: float | None = None
    """Out-of-distribution score, 0 to 1."""
    disagreement: float | None = None
    outlines: Outlines | None = None
    heat: Heat | None = None
    occlusion: Occlusion | None = None
    without_lungs: WithoutLungs | None = None
    seconds: float = 0.0
    """Of the node's page alone."""


@dataclass(frozen=True, slots=True)
class Line:
    """An answer with the digest of all that it depends on."""

    digest: str
    answer: Answer


LINES = TypeAdapter(Line)


def answer_all(
    exams: Sequence[Exam], networks: Networks, kept: Path | None, done: Callable[[], None]
) -> Iterator[Answer]:
    """Answer every film in turn, from `kept` where it holds the film already.

    `done` is called after each. Raises RetryLater when the device is out of memory; what was
    answered until then is kept.
    """
    known = _read(kept) if kept is not None else {}
    program = program_digest()
    for exam in exams:
        digest = _digest(exam, networks, program)
        line = known.get(digest)
        if line is None:
            line = Line(digest, answer_one(exam, networks))
            if kept is not None:
                # The newline comes first: it also ends a line that a killed run left torn.
                with kept.open("ab") as file:
                    file.write(b"\n" + LINES.dump_json(line))
        done()
        yield line.answer


def answer_one(exam: Exam, networks: Networks) -> Answer:
    """Run the node's page on one film, then measure; a film that cannot be read is an answer."""
    try:
        picture = look_at_picture(exam.image)
    except NotAnalyzed as verdict:
        return _unanswered(exam, not_analyzed(verdict.reason, verdict.detail, None))
    analysis = analyze(picture, networks)
    reference = read_reference(exam.mask, picture.display.shape)
    outlines = None
    if reference is not None:
        outlines = _outlines(exam, networks, picture.display, analysis, reference)
    if analysis.probabilities is None or analysis.lungs is None or analysis.explanation is None:
        return _unanswered(exam, analysis, outlines)
    explanation, lungs = analysis.explanation, analysis.lungs
    crop = crop_lungs(picture.display, lungs, networks.manifest.crop)
    box = lung_box(lungs, networks.manifest.crop.margin)
    within = (slice(box.top, box.bottom), slice(box.left, box.right))
    heat = resize(explanation.heatmap[within], crop.image.shape)
    return Answer(
        key=exam.key,
        outcome=analysis.outcome,
        reason=analysis.reason.value if analysis.reason else "",
        detail=analysis.detail,
        said=tuple(map(float, vector(analysis.probabilities))),
        members=tuple(
            tuple(map(float, vector(member.probabilities))) for member in analysis.members
        ),
        distance=analysis.out_of_distribution,
        disagreement=analysis.disagreement,
        outlines=outlines,
        heat=_heat(explanation.heatmap, lungs, reference, within),
        occlusion=occlude(networks, crop, heat, explanation.target),
        without_lungs=ask_without_lungs(networks, picture.display, lungs, crop),
        seconds=analysis.seconds["total"],
    )


def program_digest() -> str:
    """SHA-256 of the source files that shape an answer or a measure."""
    package = Path(covidnet_node.__file__).parent
    here = Path(__file__).parent
    files = [package / "analyze.py", package / "look.py", *(here / name for name in _MEASURES)]
    files += [file for room in _ROOMS for file in (package / room).glob("*.py")]
    parts = [f"{file.name}:{_sha256(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _unanswered(exam: Exam, analysis: Analysis, outlines: Outlines | None = None) -> Answer:
    return Answer(
        key=exam.key,
        outcome=analysis.outcome,
        reason=analysis.reason.value if analysis.reason else "",
        detail=analysis.detail,
        outlines=outlines,
        seconds=analysis.seconds["total"],
    )


def channel_outline(
    networks: Networks, display: NDArray[np.uint8], style: str
) -> NDArray[np.bool_]:
    """The segmenter's channel of an outline style, thresholded, in the film's geometry.

    An unknown style is taken for what the node means by lung.
    """
    manifest = networks.manifest
    square = segmenter_input(display, manifest.segmenter.side)
    both = lung_probabilities(networks.segmenter, square.image[None], networks.device)[0]
    rough = both[CHANNEL.get(style, LUNG_FIELD)] >= manifest.lungs.threshold
    return square.to_source(rough)


def read_reference(mask: Path | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """An annotator's outline in the film's geometry; None if there is none to read."""
    if mask is None:
        return None
    try:
        reference = open_picture(mask) >= 128
    except NotAnalyzed:
        return None
    return scale_mask(reference, (shape[0], shape[1]))


def _outlines(
    exam: Exam,
    networks: Networks,
    display: NDArray[np.uint8],
    analysis: Analysis,
    reference: NDArray[np.bool_],
) -> Outlines:
    found = channel_outline(networks, display, exam.mask_style)
    shipped = None if analysis.lungs is None else overlap(analysis.lungs, reference)
    second = read_reference(exam.second, display.shape)
    annotators = None if second is None else overlap(second, reference)
    return Outlines(overlap(found, reference), shipped, annotators)


def _heat(
    heatmap: NDArray[np.float32],
    lungs: NDArray[np.bool_],
    reference: NDArray[np.bool_] | None,
    crop: tuple[slice, slice],
) -> Heat:
    return Heat(
        own=energy_in_lungs(heatmap, lungs),
        own_area=float(lungs.mean()),
        own_area_of_crop=float(lungs[crop].mean()),
        reference=None if reference is None else energy_in_lungs(heatmap, reference),
        reference_area=None if reference is None else float(reference.mean()),
        reference_area_of_crop=None if reference is None else float(reference[crop].mean()),
    )


def _digest(exam: Exam, networks: Networks, program: str) -> str:
    mask = _sha256(exam.mask) if exam.mask is not None else ""
    second = _sha256(exam.second) if exam.second is not None else ""
    image = _sha256(exam.image) if exam.image.is_file() else ""
    parts = (exam.key, exam.mask_style, image, mask, second, networks.manifest.digest, program)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(kept: Path) -> dict[str, Line]:
    """A torn last line, from a run that was killed, is done again."""
    if not kept.is_file():
        return {}
    lines: dict[str, Line] = {}
    for text in kept.read_bytes().splitlines():
        try:
            line = LINES.validate_json(text)
        except ValidationError:
            continue
        lines[line.digest] = line
    return lines
