"""What to do with another version of a known instance: the duplicate policy, a pure function.

An instance UID should never come back with other content, and does: resends, recompressions,
demographic corrections, and plain mistakes. Old identity is never paired with new pixels: each
case is answered from its own file alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from covidnet_node.case import Case, Reason


class Relation(StrEnum):
    """How a case stands to the cases before it under the same study, series and instance UID."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """Same pixels, same identity (another transfer syntax, say): no new work."""
    CORRECTION = "correction"
    """Same pixels, other identity: answered afresh, the old case is superseded."""
    PIXELS_CHANGED = "pixels_changed"
    """Other pixels: answered as not analyzed, parked, a person must look."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """The relation, and the case it is a relation to (None exactly when new)."""

    relation: Relation
    of: Case | None


def judge(pixel_digest: str, identity_digest: str, predecessors: Sequence[Case]) -> Judgment:
    """Compare with `predecessors` (same instance key, oldest first, none still waiting).

    Only an answered case can have a duplicate: silence is no answer. A predecessor that could
    not be decoded has no pixel digest: it is superseded by the first version that can be, and
    says nothing about later pixels.
    """
    for case in predecessors:
        same = (case.pixel_digest, case.identity_digest) == (pixel_digest, identity_digest)
        if same and case.outcome is not None:
            return Judgment(Relation.DUPLICATE, case)
    accepted = [
        case
        for case in predecessors
        if case.reason not in (Reason.PIXELS_CHANGED, Reason.DUPLICATE, Reason.DISCARDED)
    ]
    if not accepted:
        return Judgment(Relation.NEW, None)
    decoded = [case for case in accepted if case.pixel_digest is not None]
    latest = decoded[-1] if decoded else accepted[-1]
    if latest.pixel_digest in (None, pixel_digest):
        return Judgment(Relation.CORRECTION, latest)
    return Judgment(Relation.PIXELS_CHANGED, latest)
