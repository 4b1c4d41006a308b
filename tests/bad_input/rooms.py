"""One bad object through the rooms, one after the other, as receiver and worker call them.

What a room may raise is its verdict. Everything else is a find, and leaves here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np

from covidnet_node.admit import admit
from covidnet_node.case import (
    Admission,
    Algorithm,
    Analysis,
    Case,
    Explanation,
    Member,
    Outcome,
    Probabilities,
    Reason,
    Received,
    State,
)
from covidnet_node.config import Admit, Results, Rule
from covidnet_node.errors import NotAnalyzed, Refuse
from covidnet_node.imaging.decode import read_source
from covidnet_node.imaging.digest import identity_digest
from covidnet_node.imaging.prepare import segmenter_input
from covidnet_node.look import Picture, look
from covidnet_node.receive.inbox import Incoming
from covidnet_node.receive.read_header import Header, check_command, is_uid, read_header
from covidnet_node.reports.order import Order
from covidnet_node.service.finished import Finished
from covidnet_node.service.results import Maker, Source, make_results, order_results
from covidnet_node.versions import judge
from tests.bad_input.build import Bad

WHEN = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
LIMIT = 256 * 1024 * 1024
EVERY_IMAGE = Admit(rules=(Rule(action="admit", name="all"),))
ALGORITHM = Algorithm("Fuzz", "1", "ab" * 32, 0.5, "none")
SAID = Probabilities(0.7, 0.2, 0.1)
PROFILES = (
    Results(),
    Results(
        report="enhanced", heatmap="plain_and_overlay", contours=True, segmentation=True,
        evidence_map=True, page=True, character_set="utf8", heatmap_syntax="rle",
    ),
)  # fmt: skip
LARGEST_DRAWN = 300
"""Sides above this are reported as not analyzed: drawing them takes long and shows no more."""


@dataclass(frozen=True, slots=True)
class Fate:
    """How far it came, and why no further."""

    room: str
    """receive, admit, look or report: where the answer was found."""
    reason: Reason | None
    results: tuple[Finished, ...] = ()


def walk(bad: Bad, folder: Path, profiles: tuple[Results, ...] = PROFILES) -> Fate:
    """Receive, admit, read, decode, show, digest, judge, and report for every profile."""
    try:
        path, header = receive(bad, folder)
    except Refuse as verdict:
        return Fate("receive", verdict.reason)
    admission = admitted(bad, header)
    if not admission.admitted:
        return Fate("admit", admission.reason)
    seen = looked_at(path)
    reason = seen.reason if isinstance(seen, NotAnalyzed) else None
    results = tuple(reported(path, header, admission, seen, profiles))
    assert results or not profiles, "silence"
    return Fate("look" if reason else "report", reason, results)


def receive(bad: Bad, folder: Path) -> tuple[Path, Header]:
    """As the C-STORE handler does; raises Refuse."""
    if not is_uid(bad.sop_class) or not is_uid(bad.instance):
        raise Refuse(Reason.BAD_UID, status=0xC000)
    path, offset = written(bad, folder)
    header = read_header(path, offset, bad.syntax)
    check_command(header, bad.sop_class, bad.instance)
    return path, header


def written(bad: Bad, folder: Path) -> tuple[Path, int]:
    """In the spool; and where in the file the data set begins."""
    path = folder / "received.dcm"
    incoming = Incoming(LIMIT)
    incoming.open(path, path.open("wb"), bad.sop_class, bad.instance, bad.syntax)
    incoming.write(bad.data)
    incoming.finish()
    return path, incoming.offset


def admitted(bad: Bad, header: Header) -> Admission:
    """As the C-STORE handler does, by the default rules, and then by one that takes every image."""
    if not header.has_pixels:
        return Admission(admitted=False, reason=Reason.NO_PIXELS)
    today = date(2026, 11, 23)
    strict = admit(header.dataset, bad.sop_class, "FUZZ", Admit(), today)
    lenient = admit(header.dataset, bad.sop_class, "FUZZ", EVERY_IMAGE, today)
    return strict if strict.admitted else lenient


def looked_at(path: Path) -> Picture | NotAnalyzed:
    """As the worker does."""
    try:
        picture = look(read_source(path))
        assert segmenter_input(picture.display, 64).image.shape == (64, 64)
    except NotAnalyzed as verdict:
        return verdict
    return picture


def reported(
    path: Path,
    header: Header,
    admission: Admission,
    seen: Picture | NotAnalyzed,
    profiles: tuple[Results, ...],
) -> Iterator[Finished]:
    """As the worker does: an answer for every profile, each through the gate."""
    source = read_source(path)
    picture = seen if isinstance(seen, Picture) else None
    digests = (
        (picture.pixel_digest, picture.identity_digest)
        if picture
        else ("", identity_digest(source))
    )
    judge(*digests, (known(header, admission, *digests),))
    origin = Source(source, WHEN, *digests, admission.notes)
    for order in order_results(origin, analysis(seen), Maker(ALGORITHM, "1"), profiles):
        yield from make_results(order_of(order))


def no_answer() -> NotAnalyzed:
    """In place of a picture whose answer is not drawn."""
    return NotAnalyzed(Reason.NO_PLAUSIBLE_LUNGS)


def order_of(order: Order) -> Order:
    """Without drawing the pictures of what has no lungs to draw."""
    return replace(order, algorithm=None) if order.analysis.display is None else order


def analysis(seen: Picture | NotAnalyzed) -> Analysis:
    """What networks might have said of it."""
    if isinstance(seen, NotAnalyzed):
        return Analysis(Outcome.NOT_ANALYZED, seen.reason, seen.detail)
    rows, columns = seen.display.shape
    if max(rows, columns) > LARGEST_DRAWN or min(rows, columns) < 8:
        return Analysis(Outcome.NOT_ANALYZED, Reason.TOO_SMALL, "")
    lungs = np.zeros((rows, columns), np.bool_)
    lungs[rows // 6 : -rows // 6, columns // 8 : columns * 3 // 8] = True
    lungs[rows // 6 : -rows // 6, columns * 5 // 8 : columns * 7 // 8] = True
    heat = np.where(lungs, seen.display, 0).astype(np.float32) / 255
    return Analysis(
        outcome=Outcome.ANALYZED,
        reason=None,
        display=seen.display,
        lungs=lungs,
        lung_area_fraction=0.3,
        probabilities=SAID,
        members=(Member("A", SAID), Member("B", SAID)),
        disagreement=0.0,
        out_of_distribution=0.1,
        explanation=Explanation(heat, "covid19", 1.0),
        notes=seen.notes,
    )


def known(header: Header, admission: Admission, pixels: str, identity: str) -> Case:
    """An earlier case of the same instance."""
    received = Received(
        header.key, header.sop_class_uid, "1.2", "FUZZ", "COVIDNET", "127.0.0.1", WHEN, "", 0
    )
    return Case(
        id="c", state=State.DONE, received=received, admission=admission,
        outcome=Outcome.ANALYZED, reason=None, detail="", pixel_digest=pixels or None,
        identity_digest=identity, content_at=WHEN, attempts=1, crashes=0, supersedes=None,
        superseded_by=None, updated_at=WHEN,
    )  # fmt: skip
