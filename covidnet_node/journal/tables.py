"""The tables, as SQLAlchemy Core. Portable: SQLite today, PostgreSQL without a change here.

A change of a table is a new file in `migrations/versions`; a test holds the two together.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

from covidnet_node.case import (
    CommitmentState,
    DeliveryState,
    Outcome,
    Promise,
    Reason,
    ResultKind,
    State,
)
from covidnet_node.journal.transitions import Cause

_Word = TypeVar("_Word", bound=StrEnum)


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime, kept as text of fixed width: readable, and sorted as time is."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Write 2026-11-23T00:33:00.000000Z; a naive datetime is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the journal takes aware datetimes only")
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Read it back, aware."""
        return None if value is None else datetime.fromisoformat(value)


class Plain(TypeDecorator[str]):
    """Text that may come from a stranger: what no database takes is escaped, the rest cut off."""

    impl = String
    cache_ok = True

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Escape lone surrogates and zero bytes, then keep what the column holds."""
        if value is None:
            return None
        clean = value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        return clean[: self.most]


class Word(TypeDecorator[_Word], Generic[_Word]):
    """A word of one of our enums, kept as it is spelled, so that a new word needs no migration."""

    impl = String(64)
    cache_ok = True

    def __init__(self, words: type[_Word]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: _Word | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Write the word."""
        return None if value is None else value.value

    def process_result_value(self, value: Any | None, dialect: Dialect) -> _Word | None:  # noqa: ANN401, ARG002 - SQLAlchemy's signature
        """Read the word back as a member of its enum."""
        return None if value is None else self.words(value)


metadata = MetaData()

cases = Table(
    "cases",
    metadata,
    # Order of arrival in the journal. Ids are ordered by time only to the second, and a slow
    # association may commit after a younger one: duplicates are judged in this order.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("state", Word(State), nullable=False),
    Column("since", Moment, nullable=False),  # when it came into this state
    Column("updated_at", Moment, nullable=False),
    # What was received
    Column("study_uid", Plain(64), nullable=False),
    Column("series_uid", Plain(64), nullable=False),
    Column("sop_uid", Plain(64), nullable=False),
    Column("sop_class_uid", Plain(64), nullable=False),
    Column("transfer_syntax_uid", Plain(64), nullable=False),
    Column("calling_ae", Plain(16), nullable=False),
    Column("called_ae", Plain(16), nullable=False),
    Column("peer", Plain(64), nullable=False),
    Column("received_at", Moment, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    # What the header decided
    Column("admission_reason", Word(Reason)),
    Column("admission_detail", Plain(4000), nullable=False),
    Column("admission_notes", JSON, nullable=False),  # list of words for the report
    # What was answered
    Column("outcome", Word(Outcome)),
    Column("reason", Word(Reason)),
    Column("detail", Plain(4000), nullable=False),
    Column("pixel_digest", String(128)),
    Column("identity_digest", String(128)),
    Column("content_at", Moment),
    Column("supersedes", String(32)),
    Column("superseded_by", String(32)),
    # The work on it: attempts, and the lease of the worker that has it in hand
    Column("due_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("lease_token", String(32)),
    Column("lease_owner", Plain(128)),
    Column("lease_until", Moment),
    Column("last_error", Plain(4000), nullable=False),
    Column("last_error_at", Moment),
    # Why a person must look. Set while the case is still reported if its results go out first.
    Column("park_reason", Word(Reason)),
    Column("park_detail", Plain(4000), nullable=False),
    Column("purged_at", Moment),  # when its files left the disk
    # Same instance and same bytes: one case, whoever sends them at the same time.
    Index(
        "one_case_per_bytes",
        "sop_uid",
        "series_uid",
        "study_uid",
        "sha256",
        unique=True,
        sqlite_where=text("state <> 'refused'"),
        postgresql_where=text("state <> 'refused'"),
    ),
    Index("cases_by_instance", "sop_uid", "series_uid", "study_uid", "state"),
    Index("cases_by_state", "state", "since"),
    Index("cases_in_order", "state", "number"),
    Index("cases_by_error", "last_error_at"),
    sqlite_autoincrement=True,  # a number is never used again, not even after a purge
)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("case_id", String(32), ForeignKey("cases.id"), nullable=False),
    Column("kind", Word(ResultKind), nullable=False),
    Column("sop_class_uid", Plain(64), nullable=False),
    Column("sop_instance_uid", Plain(64), nullable=False),
    Column("series_uid", Plain(64), nullable=False),
    Column("transfer_syntax_uid", Plain(64), nullable=False),
    Column("path", Text, nullable=False),  # relative to the spool, so that the data can move
    Column("sha256", String(64), nullable=False),
    Column("retired_at", Moment),  # a new analysis was asked for; kept for the record
    Index("results_by_case", "case_id"),
    Index("results_by_instance", "sop_instance_uid"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("result_id", Integer, ForeignKey("results.id"), nullable=False),
    Column("destination", Plain(64), nullable=False),
    Column("state", Word(DeliveryState), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("owed_since", Moment, nullable=False),  # patience counts from here
    Column("due_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("last_error", Plain(4000), nullable=False),
    Column("last_error_at", Moment),
    Column("delivered_at", Moment),  # when the destination stored it last
    # When it is to be asked to commit to it; null: it is not, or it has.
    Column("commit_due_at", Moment),
    Column("commit_attempts", Integer, nullable=False, server_default="0"),
    UniqueConstraint("result_id", "destination", name="one_row_per_result_and_destination"),
    Index("deliveries_by_due", "state", "destination", "due_at"),
    Index("deliveries_by_error", "last_error_at"),
    Index("deliveries_by_commit_due", "state", "destination", "commit_due_at"),
)

# Storage commitment: one row per transaction, written before its request goes out.
commitments = Table(
    "commitments",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("transaction_uid", Plain(64), nullable=False, unique=True),
    Column("destination", Plain(64), nullable=False),
    Column("ae_title", Plain(16), nullable=False),
    Column("peer", Plain(64), nullable=False),
    Column("state", Word(CommitmentState), nullable=False),
    Column("asked_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index("commitments_by_state", "state", "destination"),
)

commitment_items = Table(
    "commitment_items",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("commitment_id", Integer, ForeignKey("commitments.id"), nullable=False),
    Column("delivery_id", Integer, ForeignKey("deliveries.id"), nullable=False),
    # Of the delivery, when asked: an answer about an earlier delivery says nothing of a later one.
    Column("delivered_at", Moment, nullable=False),
    Column("sop_instance_uid", Plain(64), nullable=False),
    Column("promise", Word(Promise)),  # null until there is a report
    Column("failure_reason", Integer),
    Index("commitment_items_by_commitment", "commitment_id"),
    Index("commitment_items_by_delivery", "delivery_id"),
)

# Append only: one line per transition, written in the same transaction.
history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("case_id", String(32), ForeignKey("cases.id"), nullable=False),
    Column("at", Moment, nullable=False),
    Column("from_state", Word(State)),
    Column("to_state", Word(State), nullable=False),
    Column("cause", Word(Cause), nullable=False),
    Column("detail", Plain(4000), nullable=False),
    Index("history_by_case", "case_id"),
)

# What never became a case: rejected associations and presentation contexts.
rejections = Table(
    "rejections",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("calling_ae", Plain(16), nullable=False),
    Column("peer", Plain(64), nullable=False),
    Column("what", Plain(64), nullable=False),
    Column("detail", Plain(256), nullable=False),  # e.g. the abstract syntax
    Column("count", BigInteger, nullable=False),
    Column("last_at", Moment, nullable=False),
    UniqueConstraint("calling_ae", "peer", "what", "detail", name="one_row_per_rejection"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Plain(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", Moment, nullable=False),
)
