"""The words of a result: what a person reads in a viewer that only shows text.

They answer, in this order, what was found and how sure, on which image, where, how far it can
be trusted, and what made it. Each paragraph begins with what it is about, because dsr2html and
some viewers show the words without the concept that names them. ASCII throughout, so that it
reads the same under any character set of the source. Wording is "findings compatible with", never
a diagnosis, and never more than `intended_use` allows.
"""

import re
import unicodedata

from highdicom.sr import CodedConcept

from covidnet_node.case import Algorithm, Analysis, Outcome
from covidnet_node.intended_use import (
    CLASSES,
    FINDINGS,
    MANUFACTURER,
    NOTICE,
    PRODUCT,
    STATEMENT,
    UNLIKELY,
)
from covidnet_node.reports import codes
from covidnet_node.reports.codes import reason_words
from covidnet_node.reports.identity import count, text
from covidnet_node.reports.order import Order
from covidnet_node.reports.regions import PEAK_SHARE, Region, patient_side

CLASS_WORDS = {
    "covid19": "COVID-19 pneumonia",
    "pneumonia": "other pneumonia",
    "normal": "no COVID-19 or pneumonia pattern",
}

NOTHING_SAID = "This says nothing about the presence of disease."
"""Stands wherever an image was not analyzed, word for word."""


def called(analysis: Analysis, algorithm: Algorithm) -> str | None:
    """Name the class the ensemble calls, None where there is no conclusion."""
    if analysis.outcome is not Outcome.ANALYZED or analysis.probabilities is None:
        return None
    return analysis.probabilities.called(algorithm.covid19_threshold)


def paragraphs(
    order: Order, regions: tuple[Region, ...], remarks: tuple[str, ...]
) -> tuple[tuple[CodedConcept, str], ...]:
    """Tell the result in short paragraphs, each with the concept that names it."""
    analysis = order.analysis
    told = [(codes.SUMMARY, summary(order)), (codes.IMAGE_READ, _image(order))]
    if analysis.outcome is not Outcome.NOT_ANALYZED:
        told += [(codes.WHERE, _where(order, regions)), (codes.TRUST, _trust(analysis))]
    told.append((codes.METHOD, _method(order)))
    every = (*order.admission_notes, *analysis.notes, *_lossy(order), *remarks)
    told += [(codes.REMARK, remark) for remark in every]
    notice = "" if order.algorithm is None else order.algorithm.notice
    told += [(codes.COMMENT, f"{NOTICE}."), (codes.COMMENT, notice)]
    plain = [(name, ascii_text(words)) for name, words in told]
    return tuple((name, words) for name, words in plain if words)


def summary(order: Order) -> str:
    """Tell what was found and how sure, in a few sentences."""
    analysis = order.analysis
    lines = [f"{PRODUCT}, AI result. {NOTICE}.", _conclusion(order)]
    if analysis.probabilities is not None and analysis.outcome is not Outcome.NOT_ANALYZED:
        likely = analysis.probabilities
        shares = ", ".join(f"{CLASS_WORDS[name]} {percent(likely.of(name))}"
                           for name in CLASSES)  # fmt: skip
        lines.append(f"Probabilities: {shares}.")
        if order.algorithm is not None:
            limit = percent(order.algorithm.covid19_threshold)
            lines.append(f"COVID-19 pneumonia is called from {limit} on.")
    lines.append(f"Intended for: {STATEMENT}. Other disease is not assessed.")
    return ascii_text(" ".join(lines))


def percent(share: float) -> str:
    """Show 0 to 1 as whole percent; near the ends as a bound, so that nothing reads certain."""
    if share > 0.99:
        return "> 99 %"
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def ascii_text(words: str) -> str:
    """Reduce to printable ASCII without backslashes, which separate values in DICOM."""
    folded = unicodedata.normalize("NFKD", words.replace("\\", "/"))
    plain = "".join(mark for mark in folded if not unicodedata.combining(mark))
    printable = "".join(mark if mark.isprintable() else " " for mark in plain)
    return printable.encode("ascii", "replace").decode("ascii").strip()


def _conclusion(order: Order) -> str:
    analysis = order.analysis
    why = "" if analysis.reason is None else reason_words(analysis.reason)
    detail = f" ({analysis.detail})" if analysis.detail else ""
    if analysis.outcome is Outcome.NOT_ANALYZED:
        return f"NOT ANALYZED: {why}{detail}. {NOTHING_SAID}"
    if analysis.outcome is Outcome.INCONCLUSIVE:
        return f"INCONCLUSIVE, no conclusion: {why}{detail}. The numbers below are for information."
    name = None if order.algorithm is None else called(analysis, order.algorithm)
    return f"{FINDINGS[name]}." if name is not None else "No conclusion."


def _image(order: Order) -> str:
    """Name the image by what a reader finds in the viewer's corners, then by its UID."""
    source = order.source
    rows, columns = count(source, "Rows"), count(source, "Columns")
    facts = [
        text(source, "Modality"),
        f"view {text(source, 'ViewPosition') or 'not stated'}",
        "" if rows is None or columns is None else f"{columns} x {rows} pixels (width x height)",
        _numbered("series", text(source, "SeriesNumber")),
        _numbered("image", text(source, "InstanceNumber")),
        f"study of {_moment(text(source, 'StudyDate'), text(source, 'StudyTime'))}",
        f"SOP instance {text(source, 'SOPInstanceUID')}",
    ]
    done = "not analyzed" if order.analysis.outcome is Outcome.NOT_ANALYZED else "analyzed"
    return f"Image {done}: {', '.join(fact for fact in facts if fact)}."


def _numbered(what: str, number: str) -> str:
    return f"{what} {number}" if number else ""


def _moment(date: str, time: str) -> str:
    day = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", date)
    clock = re.match(r"(\d\d)(\d\d)", time)
    if day is None:
        return date or "unknown date"
    return "-".join(day.groups()) + ("" if clock is None else f" {clock[1]}:{clock[2]}")


def _where(order: Order, regions: tuple[Region, ...]) -> str:
    explained = order.analysis.explanation
    if explained is None:
        return ""
    if explained.target == "normal":
        return "Where: no place is pointed at, because no pattern is called."
    lines = [f"Where the networks looked for {CLASS_WORDS[explained.target]}:"]
    orientation = text(order.source, "PatientOrientation")
    for number, region in enumerate(regions, 1):
        side = patient_side(region.side, orientation)
        whose = "" if side is None else f" (patient's {side.value})"
        lines.append(
            f"peak {number}, {region.side.value} half of the image{whose}, {region.zone.value} "
            f"third of the lung, {percent(region.share)} of the heatmap;"
        )
    lines.append(
        f"outlined where the map reaches {percent(PEAK_SHARE)} of its maximum in the lungs."
        if regions
        else f"no peak is outlined (none stands out, or the class has {percent(UNLIKELY)} or less)."
    )
    lines.append(
        f"{percent(explained.energy_in_lungs)} of the heatmap lies inside the lungs as found. "
        "It shows what swayed the networks; it does not outline disease."
    )
    return " ".join(lines)


def _trust(analysis: Analysis) -> str:
    """Give the reasons to believe or doubt, and how to read them."""
    said = []
    for member in analysis.members:
        shares = [percent(member.probabilities.of(name)) for name in CLASSES]
        said.append(f"{member.name}: {', '.join(shares)}")
    lines = ["How far to trust this:"]
    if said:
        lines.append(f"member networks, in the same order, {'; '.join(said)}.")
    if analysis.disagreement is not None:
        lines.append(
            f"Their disagreement: {percent(analysis.disagreement)} (0 none, 100 complete)."
        )
    if analysis.out_of_distribution is not None:
        lines.append(f"Distance from the training data: {percent(analysis.out_of_distribution)} "
                     "(0 alike, 100 farthest).")  # fmt: skip
    if analysis.lung_area_fraction is not None:
        lines.append(f"Lungs found on {percent(analysis.lung_area_fraction)} of the image.")
    checked = "passed" if analysis.outcome is Outcome.ANALYZED else "NOT passed"
    lines.append(f"The node's own checks of these figures were {checked}.")
    lines.append("No radiologist has verified this result.")
    return " ".join(lines)


def _method(order: Order) -> str:
    program = f"Made by {PRODUCT} {order.program}".strip() + f" of {MANUFACTURER}"
    algorithm = order.algorithm
    if algorithm is None:
        return f"{program}; no networks answered."
    return (
        f"{program}; algorithm {algorithm.name} {algorithm.version}, weights "
        f"{algorithm.digest[:12]}, calibration: {algorithm.calibration or 'not stated'}."
    )


def _lossy(order: Order) -> tuple[str, ...]:
    if text(order.source, "LossyImageCompression") != "01":
        return ()
    ratio = text(order.source, "LossyImageCompressionRatio")
    return (f"The source image was lossy compressed{f' ({ratio}:1)' if ratio else ''}.",)
