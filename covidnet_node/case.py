"""The nouns that pass between rooms. Frozen, never half-filled, nothing of ours imported."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class State(StrEnum):
    """Where a case rests. Also the columns of the status page."""

    ADMITTED = "admitted"
    REPORTED = "reported"
    DONE = "done"
    REFUSED = "refused"
    PARKED = "parked"


class Outcome(StrEnum):
    """How an admitted image was answered. There is no fourth: silence looks like "normal"."""

    ANALYZED = "analyzed"
    INCONCLUSIVE = "inconclusive"
    NOT_ANALYZED = "not_analyzed"


class Reason(StrEnum):
    """Why a case is not simply analyzed. One word per thing, in code, journal, log and docs."""

    # refused: not our kind of image
    NO_RULE = "no_rule_admits_it"
    RULE_REFUSES = "a_rule_refuses_it"
    FOR_PROCESSING = "for_processing"
    SECONDARY_CAPTURE = "secondary_capture"
    MULTI_FRAME = "multi_frame"
    NO_PIXELS = "no_pixels"
    NOT_DICOM = "not_dicom"
    BAD_UID = "bad_uid"
    UID_MISMATCH = "uid_mismatch"
    TOO_LARGE = "too_large"
    NO_SPACE = "no_space"
    CANNOT_STORE = "cannot_store"
    # not analyzed: our kind, but outside intended use or unreadable
    LATERAL = "lateral"
    UNDER_18 = "under_18"
    AGE_UNKNOWN = "age_unknown"
    TOO_SMALL = "too_small"
    NOT_A_CHEST = "not_a_chest"
    NO_PLAUSIBLE_LUNGS = "no_plausible_lungs"
    UNDECODABLE = "undecodable"
    PIXELS_CHANGED = "other_pixels_under_a_known_uid"
    TECHNICAL_FAILURE = "technical_failure"
    # inconclusive
    MEMBERS_DISAGREE = "members_disagree"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    LOW_CONFIDENCE = "low_confidence"
    # done without work
    DUPLICATE = "duplicate"
    # parked, or tried again
    GAVE_UP = "gave_up_delivering"
    INVALID_RESULT = "invalid_result"
    DISCARDED = "discarded"
    OUT_OF_MEMORY = "out_of_memory"
    CANNOT_READ = "file_cannot_be_read"
    FILE_DAMAGED = "file_damaged"


class ResultKind(StrEnum):
    """A kind of object that leaves the node."""

    REPORT = "report"
    HEATMAP = "heatmap"
    PLAIN = "plain"
    """The heatmap's picture without color and contour, beside it in one series."""
    CONTOURS = "contours"
    SEGMENTATION = "segmentation"
    EVIDENCE_MAP = "evidence_map"
    PAGE = "page"
    """For "not analyzed": the words of the report as an image."""


class DeliveryState(StrEnum):
    """Where one result stands with one destination."""

    PENDING = "pending"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class InstanceKey:
    """Study, series and instance together: an instance UID alone has been seen in two series."""

    study_uid: str
    series_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class Received:
    """One C-STORE request whose bytes lie, fsynced, in the spool."""

    key: InstanceKey
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    called_ae: str
    peer: str
    """IP address of the sender."""
    received_at: datetime
    """UTC, aware."""
    sha256: str
    """Hex digest of the data set's bytes as received, without preamble and file meta."""
    size: int
    """Bytes of the spool file."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the header alone decides."""

    admitted: bool
    reason: Reason | None
    """Refused: why. Admitted: why it is outside intended use, or None if it is inside."""
    detail: str = ""
    """Words for the journal and the log; no patient data."""
    notes: tuple[str, ...] = ()
    """Words for the report, e.g. that the age was unknown."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the journal."""

    id: str
    state: State
    received: Received
    admission: Admission
    outcome: Outcome | None
    reason: Reason | None
    detail: str
    pixel_digest: str | None
    identity_digest: str | None
    content_at: datetime | None
    """UTC; the content date and time of every result, taken once, at the first claim."""
    attempts: int
    """Claims so far, this one included."""
    crashes: int
    """Times a worker died or hung while holding this case."""
    supersedes: str | None
    """Id of the case whose answer this one replaces."""
    superseded_by: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A case in a worker's hands until `until`; the token proves it still is."""

    case: Case
    token: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Calibrated, 0 to 1, sum 1."""

    covid19: float
    pneumonia: float
    normal: float

    def of(self, name: str) -> float:
        """Probability of one class by its name: covid19, pneumonia or normal."""
        return {"covid19": self.covid19, "pneumonia": self.pneumonia, "normal": self.normal}[name]

    def called(self, covid19_threshold: float) -> str:
        """Name the class that is called: COVID-19 from its threshold on, else the likelier other.

        The one rule for report, picture and explanation, so that they cannot contradict.
        """
        if self.covid19 >= covid19_threshold:
            return "covid19"
        return "pneumonia" if self.pneumonia >= self.normal else "normal"


@dataclass(frozen=True, slots=True)
class Member:
    """One network of the ensemble and what it said."""

    name: str
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Identity of the weights that answered, as reports name it."""

    name: str
    version: str
    """At most 16 characters (SH)."""
    digest: str
    """SHA-256 of the weights manifest, hex."""
    covid19_threshold: float
    """Probability of COVID-19 at and above which the finding is called."""
    calibration: str
    """How the probabilities were calibrated, in a few words."""
    notice: str = ""
    """What a reader must know of these weights, e.g. that they are provisional."""


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """How the lungs are cut out for the classifiers; stands in the weights manifest."""

    side: int
    """Pixels of the square the classifiers see."""
    margin: float
    """Added on each side of the lungs' bounding box, as a share of the box's sides."""
    dilation: float
    """Radius by which the lung mask grows before the outside is removed, as a share of `side`."""
    low_percentile: float
    """Of the gray values inside the undilated mask: becomes 0."""
    high_percentile: float
    """Becomes 1; the median becomes 0.5."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where the ensemble looked, in the geometry of the source image."""

    heatmap: NDArray[np.float32]
    """(rows, columns), 0 to 1; raw combined Grad-CAM, nothing masked away."""
    target: str
    """The class explained: covid19, pneumonia or normal."""
    energy_in_lungs: float
    """Share of the raw map's sum that lies inside the lungs, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that the medicine has to say about one image."""

    outcome: Outcome
    reason: Reason | None
    """None exactly when the outcome is analyzed."""
    detail: str = ""
    display: NDArray[np.uint8] | None = None
    """(rows, columns) of the source through its display pipeline; None if undecodable."""
    lungs: NDArray[np.bool_] | None = None
    """(rows, columns) of the source."""
    lung_area_fraction: float | None = None
    probabilities: Probabilities | None = None
    members: tuple[Member, ...] = ()
    disagreement: float | None = None
    """Half the L1 distance between the members' probabilities, 0 to 1."""
    out_of_distribution: float | None = None
    """0 to 1; larger is farther from the training data."""
    explanation: Explanation | None = None
    notes: tuple[str, ...] = ()
    """Remarks for the report, e.g. an unusual window that was repaired."""
    seconds: dict[str, float] = field(default_factory=dict)
    """decode, segment, classify, explain, total."""


@dataclass(frozen=True, slots=True)
class Result:
    """A DICOM object in the spool, ready to leave."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    """Series of the result itself, for a later result that names it as predecessor."""
    transfer_syntax_uid: str
    path: Path
    sha256: str
    """Of the whole file."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A result and who is to get it."""

    result: Result
    destinations: tuple[str, ...]
    """Names; empty: it stays on this machine."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object that an answer had to do without."""

    kind: ResultKind
    why: str
    """Words for the journal and the log; no patient data."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result owed to one destination."""

    id: int
    case_id: str
    destination: str
    calling_ae: str
    """AE title and address of the image's sender, for destinations that answer the sender."""
    peer: str
    result: Result
    state: DeliveryState
    attempts: int
    owed_since: datetime
    """UTC; when the result was journaled, or requeued by a person."""
    study_uid: str = ""
    """Study that the result belongs to: that of the image."""
    commit_attempts: int = 0
    """Times the destination has been asked to commit to it."""


class CommitmentState(StrEnum):
    """Where one storage commitment transaction stands."""

    WRITTEN = "written"
    """In the journal; the request may or may not have gone out."""
    ASKED = "asked"
    """The destination has taken the request."""
    ANSWERED = "answered"
    """Its report is in the journal, and has not been acted on."""
    SETTLED = "settled"
    REFUSED = "refused"
    """The destination did not take the request."""
    EXPIRED = "expired"
    """No report came in time; one that comes late is still heard."""


@dataclass(frozen=True, slots=True)
class Commitment:
    """One storage commitment transaction (PS3.4 Annex J): whom it was put to, and how it stands."""

    transaction_uid: str
    destination: str
    ae_title: str
    """AE title that was called."""
    peer: str
    """IP address that was reached."""
    state: CommitmentState


class Promise(StrEnum):
    """What a report says of one instance."""

    COMMITTED = "committed"
    FAILED = "failed"
    NOT_NAMED = "not_named"
    """It should have been: the report names all instances of its request (PS3.4 J.3.3.1.2)."""


@dataclass(frozen=True, slots=True)
class Promised:
    """One delivered result and what the destination's report says of it."""

    delivery: Delivery
    promise: Promise
    failure_reason: int | None
    """PS3.3 C.14.1.1; None unless it failed."""
    latest: bool
    """Whether no later request for it is under way."""
