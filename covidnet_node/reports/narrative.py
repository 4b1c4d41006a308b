"""The words of a result: what a person reads in a viewer that only shows text.

ASCII throughout, so that it reads the same under any character set of the source. Wording is
"findings compatible with", never a diagnosis, and never more than `intended_use` allows.
"""

import unicodedata

from covidnet_node.case import Algorithm, Analysis, Outcome
from covidnet_node.intended_use import CLASSES, FINDINGS, NOTICE, PRODUCT, STATEMENT
from covidnet_node.reports.codes import reason_words
from covidnet_node.reports.order import Order

CLASS_WORDS = {
    "covid19": "COVID-19 pneumonia",
    "pneumonia": "other pneumonia",
    "normal": "no COVID-19 or pneumonia pattern",
}


def called(analysis: Analysis, algorithm: Algorithm) -> str | None:
    """Name the class the ensemble calls, None where there is no conclusion."""
    if analysis.outcome is not Outcome.ANALYZED or analysis.probabilities is None:
        return None
    return analysis.probabilities.called(algorithm.covid19_threshold)


def summary(order: Order) -> str:
    """Tell the result in a few sentences."""
    lines = [f"{PRODUCT}, AI result. {NOTICE}.", _conclusion(order)]
    analysis = order.analysis
    if analysis.probabilities is not None and analysis.outcome is not Outcome.NOT_ANALYZED:
        likely = analysis.probabilities
        shares = ", ".join(f"{CLASS_WORDS[name]} {percent(likely.of(name))}"
                           for name in CLASSES)  # fmt: skip
        lines.append(f"Probabilities: {shares}.")
        lines.extend(_members(analysis))
    if order.algorithm is not None:
        lines.append(_identity(order.algorithm))
    lines.append(f"Intended for: {STATEMENT}. Other disease is not assessed.")
    return ascii_text(" ".join(lines))


def comments(order: Order, remarks: tuple[str, ...]) -> tuple[str, ...]:
    """Collect what else a reader must know: notice of the weights, notes, remarks."""
    notice = "" if order.algorithm is None else order.algorithm.notice
    every = (f"{NOTICE}.", notice, *order.admission_notes, *order.analysis.notes, *remarks)
    return tuple(ascii_text(words) for words in every if words.strip())


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
        return f"NOT ANALYZED: {why}{detail}. This says nothing about the presence of disease."
    if analysis.outcome is Outcome.INCONCLUSIVE:
        return f"INCONCLUSIVE, no conclusion: {why}{detail}. The numbers below are for information."
    name = None if order.algorithm is None else called(analysis, order.algorithm)
    return f"{FINDINGS[name]}." if name is not None else "No conclusion."


def _members(analysis: Analysis) -> list[str]:
    said = []
    for member in analysis.members:
        shares = [percent(member.probabilities.of(name)) for name in CLASSES]
        said.append(f"{member.name}: {', '.join(shares)}")
    lines = [f"Members (same order): {'; '.join(said)}."] if said else []
    if analysis.disagreement is not None:
        lines.append(f"Disagreement of the members: {percent(analysis.disagreement)}.")
    return lines


def _identity(algorithm: Algorithm) -> str:
    return (
        f"Algorithm {algorithm.name} {algorithm.version}, weights {algorithm.digest[:12]}, "
        f"COVID-19 called from {percent(algorithm.covid19_threshold)}, "
        f"calibration: {algorithm.calibration or 'not stated'}."
    )
