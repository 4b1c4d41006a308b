"""Storage commitment: what destinations are asked to commit to, and what they answer."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_MOMENT = sa.String(27)
_UID = sa.String(64)
_WORD = sa.String(64)


def upgrade() -> None:
    """Add to the deliveries, and make two tables. Nothing delivered before is asked about."""
    attempts = sa.Column("commit_attempts", sa.Integer, nullable=False, server_default="0")
    op.add_column("deliveries", sa.Column("delivered_at", _MOMENT))
    op.add_column("deliveries", sa.Column("commit_due_at", _MOMENT))
    op.add_column("deliveries", attempts)
    columns = ["state", "destination", "commit_due_at"]
    op.create_index("deliveries_by_commit_due", "deliveries", columns)
    op.create_table(
        "commitments",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("transaction_uid", _UID, nullable=False, unique=True),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("ae_title", sa.String(16), nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("state", _WORD, nullable=False),
        sa.Column("asked_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
    )
    op.create_index("commitments_by_state", "commitments", ["state", "destination"])
    op.create_table(
        "commitment_items",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("commitment_id", sa.Integer, sa.ForeignKey("commitments.id"), nullable=False),
        sa.Column("delivery_id", sa.Integer, sa.ForeignKey("deliveries.id"), nullable=False),
        sa.Column("delivered_at", _MOMENT, nullable=False),
        sa.Column("sop_instance_uid", _UID, nullable=False),
        sa.Column("promise", _WORD),
        sa.Column("failure_reason", sa.Integer),
    )
    op.create_index("commitment_items_by_commitment", "commitment_items", ["commitment_id"])
    op.create_index("commitment_items_by_delivery", "commitment_items", ["delivery_id"])
