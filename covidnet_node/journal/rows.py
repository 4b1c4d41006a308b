"""From rows of the tables to the nouns of `case`, and back."""

from pathlib import Path
from typing import Any

from sqlalchemy import Row

from covidnet_node.case import (
    Admission,
    Case,
    Delivery,
    InstanceKey,
    Reason,
    Received,
    Result,
    State,
)

AnyRow = Row[Any]


def case_of(row: AnyRow) -> Case:
    """Read a row of `cases`."""
    return Case(
        id=row.id,
        state=row.state,
        received=_received_of(row),
        admission=Admission(
            admitted=row.state is not State.REFUSED,
            reason=row.admission_reason,
            detail=row.admission_detail,
            notes=tuple(row.admission_notes),
        ),
        outcome=row.outcome,
        reason=row.reason,
        detail=row.detail,
        pixel_digest=row.pixel_digest,
        identity_digest=row.identity_digest,
        content_at=row.content_at,
        attempts=row.attempts,
        crashes=row.crashes,
        supersedes=row.supersedes,
        superseded_by=row.superseded_by,
        updated_at=row.updated_at,
    )


def _received_of(row: AnyRow) -> Received:
    return Received(
        key=InstanceKey(row.study_uid, row.series_uid, row.sop_uid),
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        peer=row.peer,
        received_at=row.received_at,
        sha256=row.sha256,
        size=row.size,
    )


def columns_of(received: Received, admission: Admission) -> dict[str, object]:
    """Lay a received object and what its header decided out as columns of `cases`."""
    return {
        "study_uid": received.key.study_uid,
        "series_uid": received.key.series_uid,
        "sop_uid": received.key.sop_uid,
        "sop_class_uid": received.sop_class_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "calling_ae": received.calling_ae,
        "called_ae": received.called_ae,
        "peer": received.peer,
        "received_at": received.received_at,
        "sha256": received.sha256,
        "size": received.size,
        "admission_reason": admission.reason,
        "admission_detail": admission.detail,
        "admission_notes": list(admission.notes),
    }


def blank_columns() -> dict[str, object]:
    """Columns of `cases` as they are before any work."""
    return {
        "detail": "",
        "attempts": 0,
        "crashes": 0,
        "last_error": "",
        "park_detail": "",
    }


def result_of(row: AnyRow, spool: Path) -> Result:
    """Read a row of `results`; the path becomes absolute."""
    return Result(
        kind=row.kind,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_uid=row.series_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        path=spool / row.path,
        sha256=row.sha256,
    )


def result_columns(case_id: str, result: Result, spool: Path) -> dict[str, object]:
    """Columns of `results`; raises ValueError if the file lies outside the spool."""
    return {
        "case_id": case_id,
        "kind": result.kind,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "series_uid": result.series_uid,
        "transfer_syntax_uid": result.transfer_syntax_uid,
        "path": result.path.absolute().relative_to(spool).as_posix(),
        "sha256": result.sha256,
    }


def delivery_of(row: AnyRow, spool: Path) -> Delivery:
    """Read a row of `deliveries` joined with its result and the sender of its case."""
    return Delivery(
        id=row.delivery_id,
        case_id=row.case_id,
        destination=row.destination,
        calling_ae=row.calling_ae,
        peer=row.peer,
        result=result_of(row, spool),
        state=row.delivery_state,
        attempts=row.attempts,
        owed_since=row.owed_since,
        study_uid=row.study_uid,
        commit_attempts=row.commit_attempts,
    )


def parked_because(park: tuple[Reason, str] | None) -> dict[str, object]:
    """Columns that say why a person must look; None: nobody must."""
    reason, detail = (None, "") if park is None else park
    return {"park_reason": reason, "park_detail": detail}
