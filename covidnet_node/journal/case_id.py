"""Names of cases: ordered by time, unique, safe as the name of a folder."""

import re
import secrets
from datetime import UTC, datetime

_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{12}")


def new_case_id(now: datetime) -> str:
    """Make an id such as 20261123T003300-5f0c9a1b2d3e; `now` is aware."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"


def is_case_id(text: str) -> bool:
    """Tell whether `text` is an id that `new_case_id` could have made."""
    return _PATTERN.fullmatch(text) is not None
