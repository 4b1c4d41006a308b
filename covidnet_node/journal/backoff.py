"""How long to wait before the next attempt. Pure: the same question has the same answer."""

import hashlib
from datetime import timedelta


def pause_after(attempts: int, first: timedelta, longest: timedelta, seed: str) -> timedelta:
    """Pause after `attempts` failed attempts: doubling from `first`, never above `longest`.

    Equal jitter: the pause lies between half of the doubled value and all of it. `seed` (for
    example the id of the case) decides where, so that what failed together does not come back
    together. `attempts` of 0 and 1 are the same.
    """
    # Seconds as float: a duration would overflow long before 62 doublings do.
    doubled = first.total_seconds() * 2 ** min(max(attempts - 1, 0), 62)
    full = min(doubled, longest.total_seconds())
    digest = hashlib.sha256(f"{seed}/{attempts}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return timedelta(seconds=full / 2 * (1 + share))
