"""The first tables: cases, results, deliveries, history, rejections, counters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_MOMENT = sa.String(27)
_UID = sa.String(64)
_WORD = sa.String(64)
_WORDS = sa.String(4000)


def upgrade() -> None:
    """Create everything. What the columns mean is said in `tables.py`."""
    _create_cases()
    _create_results()
    _create_deliveries()
    _create_history()
    _create_counts()


def _create_cases() -> None:
    op.create_table(
        "cases",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("state", _WORD, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.Column("study_uid", _UID, nullable=False),
        sa.Column("series_uid", _UID, nullable=False),
        sa.Column("sop_uid", _UID, nullable=False),
        sa.Column("sop_class_uid", _UID, nullable=False),
        sa.Column("transfer_syntax_uid", _UID, nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("called_ae", sa.String(16), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("admission_reason", _WORD),
        sa.Column("admission_detail", _WORDS, nullable=False),
        sa.Column("admission_notes", sa.JSON, nullable=False),
        sa.Column("outcome", _WORD),
        sa.Column("reason", _WORD),
        sa.Column("detail", _WORDS, nullable=False),
        sa.Column("pixel_digest", sa.String(128)),
        sa.Column("identity_digest", sa.String(128)),
        sa.Column("content_at", _MOMENT),
        sa.Column("supersedes", sa.String(32)),
        sa.Column("superseded_by", sa.String(32)),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_owner", sa.String(128)),
        sa.Column("lease_until", _MOMENT),
        sa.Column("last_error", _WORDS, nullable=False),
        sa.Column("last_error_at", _MOMENT),
        sa.Column("park_reason", _WORD),
        sa.Column("park_detail", _WORDS, nullable=False),
        sa.Column("purged_at", _MOMENT),
        sqlite_autoincrement=True,
    )
    not_refused = sa.text("state <> 'refused'")
    op.create_index(
        "one_case_per_bytes",
        "cases",
        ["sop_uid", "series_uid", "study_uid", "sha256"],
        unique=True,
        sqlite_where=not_refused,
        postgresql_where=not_refused,
    )
    op.create_index("cases_by_instance", "cases", ["sop_uid", "series_uid", "study_uid", "state"])
    op.create_index("cases_by_state", "cases", ["state", "since"])
    op.create_index("cases_in_order", "cases", ["state", "number"])
    op.create_index("cases_by_error", "cases", ["last_error_at"])


def _create_results() -> None:
    op.create_table(
        "results",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("case_id", sa.String(32), sa.ForeignKey("cases.id"), nullable=False),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("sop_class_uid", _UID, nullable=False),
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("series_uid", _UID, nullable=False),
        sa.Column("transfer_syntax_uid", _UID, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("retired_at", _MOMENT),
    )
    op.create_index("results_by_case", "results", ["case_id"])
    op.create_index("results_by_instance", "results", ["sop_instance_uid"])


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("result_id", sa.Integer, sa.ForeignKey("results.id"), nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("state", _WORD, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owed_since", _MOMENT, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.Column("last_error", _WORDS, nullable=False),
        sa.Column("last_error_at", _MOMENT),
        sa.UniqueConstraint("result_id", "destination", name="one_row_per_result_and_destination"),
    )
    op.create_index("deliveries_by_due", "deliveries", ["state", "destination", "due_at"])
    op.create_index("deliveries_by_error", "deliveries", ["last_error_at"])


def _create_history() -> None:
    op.create_table(
        "history",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("case_id", sa.String(32), sa.ForeignKey("cases.id"), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("from_state", _WORD),
        sa.Column("to_state", _WORD, nullable=False),
        sa.Column("cause", _WORD, nullable=False),
        sa.Column("detail", _WORDS, nullable=False),
    )
    op.create_index("history_by_case", "history", ["case_id"])


def _create_counts() -> None:
    op.create_table(
        "rejections",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(256), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at", _MOMENT, nullable=False),
        sa.UniqueConstraint("calling_ae", "peer", "what", "detail", name="one_row_per_rejection"),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at", _MOMENT, nullable=False),
    )
