"""`covidnet-node analyze`: files in, result objects out, no network and no journal."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from PIL import Image

from covidnet_node.admit import admit
from covidnet_node.case import Analysis, Outcome, Reason, ResultKind
from covidnet_node.config import Config, Results
from covidnet_node.errors import NotAnalyzed, Park, RetryLater
from covidnet_node.explain.overlay import draw_overlay
from covidnet_node.imaging.decode import read_source
from covidnet_node.imaging.digest import identity_digest
from covidnet_node.look import Picture, look, look_at_picture, not_analyzed
from covidnet_node.service.medicine import Medicine
from covidnet_node.service.results import Source, make_results, order_results

PICTURE_FILES = frozenset({".png", ".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """One file that was written."""

    kind: str
    path: str
    sop_instance_uid: str | None
    """None for a picture, which is no DICOM object."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What `analyze --json` prints of one file."""

    file: str
    sop_instance_uid: str | None
    analysis: Analysis
    objects: tuple[WrittenObject, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The contract of `analyze --json`, key by key."""
        analysis = self.analysis
        explanation = analysis.explanation
        return {
            "file": self.file,
            "sop_instance_uid": self.sop_instance_uid,
            "outcome": analysis.outcome.value,
            "reason": analysis.reason.value if analysis.reason else None,
            "detail": analysis.detail,
            "probabilities": asdict(analysis.probabilities) if analysis.probabilities else None,
            "members": [
                {"name": member.name, "probabilities": asdict(member.probabilities)}
                for member in analysis.members
            ],
            "disagreement": analysis.disagreement,
            "out_of_distribution": analysis.out_of_distribution,
            "lung_area_fraction": analysis.lung_area_fraction,
            "heatmap_energy_in_lungs": explanation.energy_in_lungs if explanation else None,
            "objects": [asdict(each) for each in self.objects],
            "seconds": {stage: round(value, 4) for stage, value in self.seconds.items()},
        }


def analyze_files(
    files: list[Path], out: Path, config: Config, medicine: Medicine
) -> Iterator[Answer]:
    """Answer each file in turn; what cannot be read is answered "not analyzed", with the reason."""
    out.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files, 1):
        started = perf_counter()
        stem = f"{number:04d}-{file.stem}"
        if file.suffix.lower() in PICTURE_FILES:
            answer = _answer_picture(file, out / stem, medicine)
        else:
            answer = _answer_dicom(file, out / stem, config, medicine)
        answer.seconds["total"] = perf_counter() - started
        yield answer


def _answer_picture(file: Path, stem: Path, medicine: Medicine) -> Answer:
    try:
        analysis = medicine.analyze(look_at_picture(file))
    except (NotAnalyzed, RetryLater) as verdict:
        return Answer(str(file), None, not_analyzed(verdict.reason, verdict.detail, None))
    started = perf_counter()
    objects: tuple[WrittenObject, ...] = ()
    if analysis.outcome is not Outcome.NOT_ANALYZED:
        path = Path(f"{stem}.heatmap.png")
        Image.fromarray(draw_overlay(analysis, medicine.algorithm)).save(path)
        objects = (WrittenObject(ResultKind.HEATMAP.value, str(path), None),)
    seconds = dict(analysis.seconds, report=perf_counter() - started)
    return Answer(str(file), None, analysis, objects, seconds)


def _answer_dicom(file: Path, stem: Path, config: Config, medicine: Medicine) -> Answer:
    try:
        header = read_source(file)
    except (NotAnalyzed, RetryLater) as verdict:
        return Answer(str(file), None, not_analyzed(verdict.reason, verdict.detail, None))
    uid = str(header.get("SOPInstanceUID", "")) or None
    today = datetime.now(UTC).astimezone()
    admission = admit(header, str(header.get("SOPClassUID", "")), "", config.admit, today.date())
    if not admission.admitted:
        reason = admission.reason or Reason.NO_RULE
        return Answer(str(file), uid, not_analyzed(reason, admission.detail, None))
    analysis, picture = _analyze(file, admission.reason, admission.detail, medicine)
    started = perf_counter()
    source = Source(
        header=read_source(file),
        content_at=today,
        pixel_digest=picture.pixel_digest if picture else "",
        identity_digest=picture.identity_digest if picture else identity_digest(header),
        notes=admission.notes,
    )
    try:
        (order,) = order_results(source, analysis, medicine.maker, (Results(),))
        finished = make_results(order)
    except Park as verdict:
        return Answer(str(file), uid, not_analyzed(verdict.reason, verdict.detail, picture))
    objects = []
    for each in finished:
        path = Path(f"{stem}.{each.kind.value}.dcm")
        path.write_bytes(each.data)
        objects.append(WrittenObject(each.kind.value, str(path), each.sop_instance_uid))
    seconds = dict(analysis.seconds, report=perf_counter() - started)
    return Answer(str(file), uid, analysis, tuple(objects), seconds)


def _analyze(
    file: Path, outside: Reason | None, detail: str, medicine: Medicine
) -> tuple[Analysis, Picture | None]:
    try:
        picture = look(read_source(file))
    except (NotAnalyzed, RetryLater) as verdict:
        return not_analyzed(verdict.reason, verdict.detail, None), None
    if outside is not None:
        return not_analyzed(outside, detail, picture), picture
    return medicine.analyze(picture), picture
