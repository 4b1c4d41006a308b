"""Answers that follow one another, for destinations that want different things."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from covidnet_node.case import Result
from covidnet_node.config import Results
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
from covidnet_node.service.results import follow
from tests.orders import ALGORITHM, WHEN, order

FIRST = ALGORITHM
SECOND = replace(ALGORITHM, digest="cd" * 32, version="2")
HEATMAP_ONLY = Results(report="none")


def generations(algorithms, profiles):
    """UID to bytes of each generation's objects, every one a day after the one before."""
    earlier, content_at, found = [], WHEN, []
    for number, algorithm in enumerate(algorithms):
        orders = [
            order(algorithm=algorithm, profile=profile, content_at=content_at)
            for profile in profiles
        ]
        placed = follow(orders, earlier, WHEN + number * timedelta(days=1))
        content_at = placed[0].content_at
        objects = {}
        results = []
        for each in placed:
            for built in build_results(each):
                uid = str(built.dataset.SOPInstanceUID)
                file = encode(built.dataset)
                assert objects.setdefault(uid, file) == file
                sop_class, series = built.dataset.SOPClassUID, built.dataset.SeriesInstanceUID
                results.append(Result(built.kind, sop_class, uid, series, "", Path("x"), ""))
        earlier.append(results)
        found.append(objects)
    return found


@pytest.mark.parametrize(
    "profiles",
    [
        [Results()],
        [Results(), Results(report="comprehensive")],
        [Results(), Results(report_series_number=5)],
        [HEATMAP_ONLY],
        [HEATMAP_ONLY, Results()],
    ],
)
@pytest.mark.parametrize(
    "algorithms", [(FIRST, SECOND, SECOND, FIRST), (FIRST, SECOND, FIRST, FIRST)]
)
def test_an_answer_has_one_name_and_a_name_one_answer(profiles, algorithms):
    made = generations(algorithms, profiles)
    for before, after, old, new in zip(made, made[1:], algorithms, algorithms[1:], strict=False):
        if old is new:
            assert before == after
        else:
            assert not before.keys() & after.keys()
    every = [item for objects in made for item in objects.items()]
    assert len({uid for uid, _ in every}) == len(set(every))


def test_what_profiles_share_they_go_on_sharing():
    profiles = [Results(), Results(report="enhanced")]
    sizes = [len(objects) for objects in generations((FIRST, SECOND, FIRST), profiles)]
    assert sizes == [3, 3, 3]
