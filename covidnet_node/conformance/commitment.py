"""What the node asks and answers of storage commitment, from the tables it does so with."""

from collections.abc import Iterator

from covidnet_node.commit import (
    FAILURE_REASONS,
    NO_SUCH_ARGUMENT,
    NO_SUCH_EVENT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
    told,
)
from covidnet_node.service.committing import ASK_AGAIN


def reason_lines() -> Iterator[str]:
    """What the node makes of a Failure Reason in a report (PS3.3 C.14.1.1)."""
    yield "| Failure Reason | Meaning | Behavior |"
    yield "|---|---|---|"
    for reason in sorted(FAILURE_REASONS):
        code, _, meaning = told(reason).partition(" ")
        again = "Asked again" if reason in ASK_AGAIN else "Sent again, then asked again"
        yield f"| {code} | {meaning} | {again}, after a pause that grows, under a new UID |"
    yield "| anything else | unknown | Sent again, then asked again |"
    yield "| (not named in the report) | | Sent again, then asked again |"


def report_lines() -> Iterator[str]:
    """Statuses of the node's answers to an N-EVENT-REPORT (PS3.2 table N.7-45)."""
    yield "| Status | Meaning | Condition |"
    yield "|---|---|---|"
    failures = (
        "No transaction of this UID, or not the peer that was asked; or a report that cannot be "
        "read; or a journal that cannot be written: the report may be sent again"
    )
    for status, meaning, condition in (
        (SUCCESS, "Success", "The report is journaled; or it had been, and this is a repeat"),
        (PROCESSING_FAILURE, "Processing failure", failures),
        (NO_SUCH_INSTANCE, "No such SOP Instance", "Another than the well-known SOP Instance"),
        (NO_SUCH_EVENT, "No such event type", "Another than 1 and 2"),
        (NO_SUCH_ARGUMENT, "No such argument", "No Transaction UID"),
    ):
        yield f"| {status:04X} | {meaning} | {condition} |"
