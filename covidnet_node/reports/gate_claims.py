"""The gate's look at what a report claims: words, codes and numbers must say the same.

A reader may see only one of the three, so each must be enough, and none may contradict.
"""

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from covidnet_node.case import Outcome, Probabilities
from covidnet_node.intended_use import CLASSES, FINDINGS
from covidnet_node.reports import codes
from covidnet_node.reports.checks import content, measured, named, said
from covidnet_node.reports.identity import items, text
from covidnet_node.reports.narrative import CLASS_WORDS, percent

_FINDING = "121071"
_ALGORITHM = ("111001", "111003")
"""Algorithm Name and Version (PS3.16 TID 4019)."""
_ROUNDED = 0.006
"""Percent by which a NUM of two decimals may differ from the number that was rounded in words."""
_OPENINGS = {Outcome.NOT_ANALYZED: "NOT ANALYZED:", Outcome.INCONCLUSIVE: "INCONCLUSIVE,"}


def claim_faults(result: Dataset, outcome: Outcome) -> Iterator[str]:
    """Complain where words, codes and numbers of a report of this outcome differ."""
    tree = list(content(result))
    summary = " ".join(text(item, "TextValue") for item in tree
                       if named(item) == codes.SUMMARY.value)  # fmt: skip
    shares = _shares(tree)
    findings = [said(item) for group in tree if _tells_outcome(group)
                for item in items(group, "ContentSequence") if named(item) == _FINDING]  # fmt: skip
    allowed = _callable(tree, shares) if outcome is Outcome.ANALYZED else set()
    if outcome is not Outcome.ANALYZED:
        nothing = {Outcome.NOT_ANALYZED: codes.NOTHING_FOUND, Outcome.INCONCLUSIVE:
                   codes.NO_CONCLUSION}[outcome]  # fmt: skip
        fits = findings == [nothing.value] and _OPENINGS[outcome] in summary
        fits = fits and not any(words in summary for words in FINDINGS.values())
    else:
        fits = any(findings == [codes.CONCLUSIONS[name].value] and FINDINGS[name] in summary
                   for name in allowed)  # fmt: skip
    if not fits:
        yield "the finding does not fit outcome, numbers and summary"
    if outcome is not Outcome.NOT_ANALYZED:
        yield from _numbers(tree, shares, summary)


def _tells_outcome(group: Dataset) -> bool:
    return any(named(child) == codes.OUTCOME.value for child in items(group, "ContentSequence"))


def _shares(tree: list[Dataset]) -> dict[str, float]:
    """Percent of each class, by its name."""
    classes = {concept.value: name for name, concept in codes.CLASSES.items()}
    found = {}
    for group in tree:
        below = items(group, "ContentSequence")
        certain = [measured(item) for item in below if named(item) == codes.CERTAINTY.value]
        of = [classes[said(item)] for item in below
              if named(item) == _FINDING and said(item) in classes]  # fmt: skip
        if len(certain) == len(of) == 1:
            found[of[0]] = certain[0]
    return found


def _callable(tree: list[Dataset], shares: dict[str, float]) -> set[str]:
    """The classes that the numbers allow to be called; more than one where rounding hides it."""
    thresholds = [measured(item) for item in tree if named(item) == codes.THRESHOLD.value]
    if set(shares) != set(CLASSES) or len(thresholds) != 1:
        return set()
    called = set()
    for step in (-_ROUNDED, 0, _ROUNDED):
        for other in (-_ROUNDED, 0, _ROUNDED):
            near = Probabilities(shares["covid19"] + step, shares["pneumonia"] + other,
                                 shares["normal"])  # fmt: skip
            called.add(near.called(thresholds[0]))
    return called


def _numbers(tree: list[Dataset], shares: dict[str, float], summary: str) -> Iterator[str]:
    if set(shares) == set(CLASSES) and abs(sum(shares.values()) - 100) > 0.1:
        yield "the probabilities do not add up to 100 %"
    for name, share in shares.items():
        written = re.findall(rf"(?<!other ){CLASS_WORDS[name]} ([<>]? ?\d+ %)", summary)
        near = {percent((share + step) / 100) for step in (-_ROUNDED, 0, _ROUNDED)}
        if len(written) != 1 or written[0].strip() not in near:
            yield f"the summary does not say the probability of {name}"
    for group in tree:
        below = {named(child) for child in items(group, "ContentSequence")}
        if _FINDING in below and not below.issuperset(_ALGORITHM):
            yield "a finding without the algorithm that made it"
