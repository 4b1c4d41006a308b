"""What became of every image: the senders' promises against what lies at the PACS."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture.node import Life

REFUSED = frozenset({"a700", "c000"})
"""Answers by which a PACS says that it has not kept the object; silence does not say so."""
SR = "1.2.840.10008.5.1.4.1.1.88."
COURSE = 20
"""Samples kept of a life's memory."""
YOUNG_S = 60.0
"""A process still grows into its work until then."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Counted in images and objects; none of the last four may be more than 0."""

    delivered: int
    """Acknowledged, and answered by a report that the PACS has stored."""
    objects: int
    """Different SOP instances at the PACS."""
    resent: int
    """Objects that came again with the same bytes: harmless."""
    lost: tuple[str, ...]
    """Studies acknowledged and without a stored report."""
    missing: tuple[str, ...]
    """Results that the node made, reports and heatmaps, and the PACS has not stored."""
    duplicated: tuple[str, ...]
    """Studies of which the PACS has, or may have, two reports or two heatmaps."""
    changed: tuple[str, ...]
    """SOP instances that came again with other bytes, or under a UID that is not theirs."""


class Answered:
    """Studies with a report that the PACS has stored; reads on where it stopped."""

    def __init__(self, arrivals: Path) -> None:
        self._arrivals = arrivals
        self._read = 0
        self._studies: set[str] = set()

    def __call__(self) -> set[str]:
        """All so far."""
        if self._arrivals.exists():
            with self._arrivals.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    seen = json.loads(line)
                    if _is_stored_report(seen):
                        self._studies.add(seen["study"])
        return self._studies


def balance(acknowledged: set[str], owed: set[str], arrivals: Path) -> Balance:
    """Compare what was promised to senders, and what the node made of it, with what arrived."""
    reports, others = defaultdict(set), defaultdict(set)
    digests: dict[str, str] = {}
    changed, resent, answered, stored = set(), 0, set(), set()
    for line in _lines(arrivals):
        uid = line["uid"]
        if digests.setdefault(uid, line["digest"]) != line["digest"] or not line["same_uid"]:
            changed.add(uid)
        kind = reports if line["class"].startswith(SR) else others
        resent += uid in kind[line["study"]]
        if line["met"] not in REFUSED:
            kind[line["study"]].add(uid)
        if line["stored"]:
            stored.add(uid)
        if _is_stored_report(line):
            answered.add(line["study"])
    twice = {study for kind in (reports, others) for study, uids in kind.items() if len(uids) > 1}
    return Balance(
        delivered=len(acknowledged & answered),
        objects=len(digests),
        resent=resent,
        lost=tuple(sorted(acknowledged - answered)),
        missing=tuple(sorted(owed - stored)),
        duplicated=tuple(sorted(twice)),
        changed=tuple(sorted(changed)),
    )


def echoes(file: Path, lives: list[Life]) -> dict[str, float]:
    """C-ECHO while the node was meant to be up: count, unanswered, and seconds.

    `machine_longest_s` is the longest that another process took to hand back one byte: what the
    machine's load alone costs.
    """
    took, unanswered, machine = [], 0, 0.0
    for line in file.read_text().splitlines():
        started, seconds, idle = map(float, line.split())
        machine = max(machine, idle)
        over = started + (20.0 if math.isnan(seconds) else seconds)
        if not any(life.up <= started and over <= life.down for life in lives):
            continue
        if math.isnan(seconds):
            unanswered += 1
        else:
            took.append(seconds)
    took.sort()
    return {
        "asked": len(took) + unanswered,
        "unanswered": unanswered,
        "over_1_s": sum(seconds > 1 for seconds in took),
        "median_s": round(took[len(took) // 2], 4) if took else 0.0,
        "p99_s": round(took[int(len(took) * 0.99)], 4) if took else 0.0,
        "longest_s": round(took[-1], 4) if took else 0.0,
        "machine_longest_s": round(machine, 4),
    }


def longest_life(lives: list[Life]) -> dict[str, Any]:
    """Memory, threads and files of the life that lasted longest, after its first minute."""
    life = max(lives, key=lambda each: len(each.samples))
    grown = [sample for sample in life.samples if sample.age > YOUNG_S]
    if len(grown) < 10:
        return {"minutes": round((life.down - life.up) / 60, 1)}
    fifth = max(1, len(grown) // 5)
    first, last = grown[:fifth], grown[-fifth:]

    def typical(samples: list, name: str) -> float:
        values = sorted(getattr(sample, name) for sample in samples)
        return round(float(values[len(values) // 2]), 1)

    return {
        "minutes": round((life.down - life.up) / 60, 1),
        "rss_mib_first": typical(first, "rss_mib"),
        "rss_mib_last": typical(last, "rss_mib"),
        "rss_mib_most": round(max(sample.rss_mib for sample in grown), 1),
        "rss_mib_course": [
            round(sample.rss_mib) for sample in grown[:: max(1, len(grown) // COURSE)]
        ],
        "threads_first": typical(first, "threads"),
        "threads_last": typical(last, "threads"),
        "files_first": typical(first, "files"),
        "files_last": typical(last, "files"),
    }


def _is_stored_report(line: dict) -> bool:
    return bool(line["stored"]) and line["class"].startswith(SR)


def _lines(file: Path) -> list[dict]:
    if not file.exists():
        return []
    whole = file.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in whole if line.endswith("\n")]
