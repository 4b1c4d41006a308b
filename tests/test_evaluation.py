"""Figures of evaluation: against hand-computed ones and scikit-learn, counted honestly."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from covidnet_node.case import Outcome
from covidnet_node.training.evaluation.answers import Answer
from covidnet_node.training.evaluation.calibration import BINS, calibration, calibration_error
from covidnet_node.training.evaluation.classes import call, class_figures, member_figures
from covidnet_node.training.evaluation.doubt import foreign, laterals, outcomes
from covidnet_node.training.evaluation.exams import Exam
from covidnet_node.training.evaluation.goals import judge
from covidnet_node.training.evaluation.groups import Group, Seen, main_groups
from covidnet_node.training.evaluation.intervals import (
    Estimate,
    Ranking,
    area,
    estimates,
    mean_estimate,
    patient_weights,
    share_estimate,
)
from covidnet_node.training.evaluation.outlines import overlap

THRESHOLD = 0.4
LABELS = ("covid", "pneumonia", "normal")


def seen(number, label="covid", said=(0.5, 0.3, 0.2), **more):
    """A film that never was, and what was said of it."""
    exam = Exam(
        key=f"a/{number}",
        source=more.get("source", "a"),
        patient=more.get("patient", f"p{number}"),
        label=label,
        view=more.get("view", "PA"),
        lateral=False,
        image=Path("none.jpg"),
        mask=None,
        second=None,
        mask_style="unknown",
    )
    outcome = more.get("outcome", Outcome.ANALYZED if said else Outcome.NOT_ANALYZED)
    answer = Answer(
        key=exam.key,
        outcome=outcome,
        reason=more.get("reason", ""),
        detail="",
        said=said,
        members=more.get("members", ()),
        distance=more.get("distance"),
    )
    return Seen(exam, answer)


def random_group(count=60, seed=3):
    generator = np.random.default_rng(seed)
    truth = np.arange(count) % 3
    vectors = generator.dirichlet((1, 1, 1), count) * 0.6 + np.eye(3)[truth] * 0.4
    films = tuple(
        seen(n, LABELS[truth[n]], tuple(vectors[n]), patient=f"p{n // 2}") for n in range(count)
    )
    return Group("drawn", films), truth, vectors


# --- figures


def test_area_is_scikit_learns_with_ties_and_weights():
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 8, 200) / 8
    truth = generator.random(200) < 0.3 + scores / 3
    weights = generator.integers(0, 4, 200).astype(float)
    assert Ranking(scores, truth).area(weights) == pytest.approx(
        metrics.roc_auc_score(truth, scores, sample_weight=weights)
    )
    assert math.isnan(Ranking(scores, np.ones(200, bool)).area(weights))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=1))
def test_weights_mean_repeats(films):
    """A film of weight two counts as two films: that is what a bootstrap draw is."""
    scores, truth, weights = (np.array(column) for column in zip(*films, strict=True))
    repeated = Ranking(np.repeat(scores, weights), np.repeat(truth, weights))
    one = Ranking(scores, truth).area(weights.astype(float))
    other = repeated.area(np.ones(int(weights.sum())))
    assert one == pytest.approx(other, nan_ok=True)


def test_class_figures_are_scikit_learns():
    group, truth, vectors = random_group()
    found = class_figures(group, THRESHOLD)
    called = call(vectors, THRESHOLD)
    assert found.auc_macro.value == pytest.approx(
        metrics.roc_auc_score(truth, vectors, multi_class="ovr", average="macro")
    )
    assert found.auc.normal.value == pytest.approx(metrics.roc_auc_score(truth == 2, vectors[:, 2]))
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(truth, called))
    assert found.balanced_accuracy.value == pytest.approx(
        metrics.balanced_accuracy_score(truth, called)
    )
    f1 = metrics.f1_score(truth, called, average=None)
    assert [found.f1.covid19.value, found.f1.pneumonia.value] == pytest.approx(f1[:2].tolist())
    assert found.f1_macro.value == pytest.approx(f1.mean())
    recall = metrics.recall_score(truth, called, average=None)
    assert found.recall.normal.value == pytest.approx(recall[2])
    table = metrics.confusion_matrix(truth, called)
    assert [list(row[:3]) for row in found.confusion] == table.tolist()
    likeliest = metrics.accuracy_score(truth, vectors.argmax(axis=1))
    assert found.accuracy_most_probable.value == pytest.approx(likeliest)
    for estimate in (found.accuracy, found.auc_macro, found.specificity):
        assert estimate.low <= estimate.value <= estimate.high


def test_what_a_reader_gets_counts_films_without_conclusion():
    sure = (0.8, 0.1, 0.1)
    films = (
        seen(1, "covid", sure),
        seen(2, "covid", sure, outcome=Outcome.INCONCLUSIVE),
        seen(3, "covid", None),
        seen(4, "covid", (0.1, 0.8, 0.1)),
    )
    found = class_figures(Group("ill", films), THRESHOLD)
    assert found.sensitivity.value == pytest.approx(2 / 3)
    assert found.sensitivity_concluded.value == pytest.approx(1 / 4)
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.accuracy_most_probable.value == pytest.approx(2 / 4)
    assert found.accuracy_unanswered_wrong.value == pytest.approx(2 / 4)


def test_covid_is_called_from_the_shipped_threshold_on():
    films = (
        seen(1, "covid", (0.40, 0.45, 0.15)),
        seen(2, "covid", (0.39, 0.45, 0.16)),
        seen(3, "normal", (0.41, 0.09, 0.50)),
        seen(4, "normal", (0.10, 0.10, 0.80)),
        seen(5, "pneumonia", (0.10, 0.80, 0.10)),
    )
    found = class_figures(Group("by hand", films), THRESHOLD)
    assert found.sensitivity.value == 0.5
    assert found.specificity.value == pytest.approx(2 / 3)
    assert found.confusion == ((1, 1, 0, 0), (0, 1, 0, 0), (1, 0, 1, 0))
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.accuracy_most_probable.value == pytest.approx(3 / 5)


def test_films_without_answer_are_counted_and_never_right():
    films = (
        seen(1, "covid", (0.9, 0.05, 0.05)),
        seen(2, "normal", None, reason="no_plausible_lungs"),
        seen(3, "normal", (0.1, 0.1, 0.8), outcome=Outcome.INCONCLUSIVE),
        seen(4, "normal", (0.1, 0.1, 0.8)),
    )
    found = class_figures(Group("by hand", films), THRESHOLD)
    assert (found.films, found.unanswered, found.inconclusive) == (4, 1, 1)
    assert found.accuracy.value == 1.0
    assert found.accuracy_unanswered_wrong.value == 0.75
    assert found.confusion[2] == (0, 0, 2, 1)


def test_a_group_of_silence_has_counts_but_no_figures():
    found = class_figures(Group("silent", (seen(1, "covid", None),)), THRESHOLD)
    assert found.auc_macro == Estimate(None, None, None)
    assert found.accuracy_unanswered_wrong.value == 0.0
    assert calibration(Group("silent", (seen(1, "covid", None),))) is None


def test_other_and_unknown_are_never_normal():
    group = Group("foreign", (seen(1, "other"), seen(2, "unknown")))
    assert class_figures(group, THRESHOLD) is None
    mixed = Group("mixed", (*group.films, seen(3, "normal", (0.1, 0.1, 0.8))))
    assert class_figures(mixed, THRESHOLD).per_class == (0, 0, 1)


def test_one_class_has_no_area():
    films = tuple(seen(n, "covid") for n in range(5))
    found = class_figures(Group("covid only", films), THRESHOLD)
    assert found.auc.covid19.value is None
    assert found.auc_macro.value is None
    assert found.sensitivity.value == 1.0
    assert found.specificity.value is None


def test_children_and_mined_labels_stand_apart():
    films = [seen(1, source="kermany"), seen(2, source="nih"), seen(3, source="cohen")]
    names = {group.name: len(group.films) for group in main_groups(films)}
    assert names == {"all adults": 2, "all adults without nih": 1}
    assert len(main_groups(films[:2])) == 1


def test_the_ensemble_is_compared_on_the_same_draws():
    group, truth, vectors = random_group()
    weak = np.random.default_rng(5).dirichlet((1, 1, 1), len(truth))
    films = tuple(
        replace(each, answer=replace(each.answer, members=(tuple(v), tuple(w))))
        for each, v, w in zip(group.films, vectors, weak, strict=True)
    )
    same, other = member_figures(Group("drawn", films), ("same", "weak"))
    assert (same.gain_macro.low, same.gain_macro.high) == (0.0, 0.0)
    assert other.gain_macro.low > 0
    assert other.auc_macro.value == pytest.approx(
        metrics.roc_auc_score(truth, weak, multi_class="ovr")
    )
    assert member_figures(Group("one class", films[:1]), ("same", "weak")) == ()


# --- intervals


def test_a_patient_is_drawn_whole_or_not_at_all():
    patients = ["x", "y", "x", "z", "y", "x"]
    weights = patient_weights(patients, draws=200)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 5]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    persons = weights[:, [0, 1, 3]]
    assert (persons.sum(axis=1) == 3).all()
    assert (persons == 0).any()
    assert (persons > 1).any()


def test_films_of_one_patient_are_not_independent_witnesses():
    values = [float(n % 2) for n in range(40)]
    alone = mean_estimate(values, [str(n) for n in range(40)])
    few = mean_estimate(values, [f"p{n % 4}" for n in range(40)])
    assert alone.value == few.value == 0.5
    assert few.high - few.low > 2 * (alone.high - alone.low)


def test_the_interval_covers_what_theory_says():
    values = np.random.default_rng(1).random(400).tolist()
    found = mean_estimate(values, [str(n) for n in range(400)])
    half = 1.96 * np.std(values) / 20
    assert found.low == pytest.approx(np.mean(values) - half, abs=0.005)
    assert found.high == pytest.approx(np.mean(values) + half, abs=0.005)


def test_what_never_happened_is_not_impossible():
    """The rule of three, two-sided: none of 46 patients leaves up to 7.7 percent."""
    names = [str(n) for n in range(46)]
    never, always = (share_estimate([each] * 46, names) for each in (False, True))
    assert (never.value, never.low) == (0.0, 0.0)
    assert never.high == pytest.approx(0.0771, abs=1e-4)
    assert always.low == pytest.approx(1 - never.high)
    assert share_estimate([False] * 46, ["one"] * 46).high == pytest.approx(0.975)
    assert share_estimate([], []).value is None


def test_what_cannot_be_known_is_left_out():
    assert mean_estimate([], []) == Estimate(None, None, None)
    assert area([], [], []) == Estimate(None, None, None)
    assert mean_estimate([0.5], ["only"]) == Estimate(0.5, None, None)
    for patients, known in (("a", "b"), False), (("a", "b", "c"), True):
        scores = [0.5] * len(patients) + [0.1] * 30
        truth = [True] * len(patients) + [False] * 30
        found = area(scores, truth, [*patients, *map(str, range(30))])
        assert (found.low is not None) is known
    rare = estimates(lambda w: np.array([np.nan if w[0] < 2 else 1.0]), ["a", "b", "c"])
    assert rare == (Estimate(None, None, None),)
    assert Estimate(None, None, None).words() == "–"
    assert Estimate(0.5, 0.25, 0.75).words() == "0.500 (0.250 to 0.750)"


# --- calibration


def test_calibration_error_by_hand():
    stated = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5])
    right = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    expected = (4 * abs(0.9 - 0.75) + 2 * 0.0) / 6
    assert calibration_error(stated, right, np.ones(6)) == pytest.approx(expected)
    doubled = calibration_error(stated, right, np.array([1, 1, 1, 3, 1, 1.0]))
    assert doubled == pytest.approx(6 * abs(0.9 - 0.5) / 8)


def test_the_interval_of_the_error_holds_the_error():
    """A draw holds fewer different films, and so is worse calibrated than all of them."""
    group, _, _ = random_group(40)
    found = calibration(group)
    for error in (found.error, found.error_covid19):
        assert error.low < error.value < error.high


def test_certain_and_right_is_calibrated():
    group = Group("sure", tuple(seen(n, "covid", (1.0, 0.0, 0.0)) for n in range(4)))
    found = calibration(group)
    assert found.error.value == 0.0
    assert found.brier.value == 0.0
    assert len(found.bins) == BINS
    assert (found.bins[-1].films, found.bins[-1].accuracy) == (4, 1.0)
    assert found.bins[0].accuracy is None


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_is_bounded_by_the_mean_gap(films):
    stated, right = (np.array(column, float) for column in zip(*films, strict=True))
    found = calibration_error(stated, right, np.ones(len(films)))
    assert abs((stated - right).mean()) - 1e-9 <= found <= np.abs(stated - right).mean() + 1e-9


# --- outlines


def square(top, left, side=20, size=100):
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_overlap_by_hand():
    found = overlap(square(40, 40), square(40, 50))
    assert found.dice == 0.5
    assert found.iou == pytest.approx(1 / 3)
    assert found.boundary_95 == pytest.approx(10 * 100 / math.hypot(100, 100))
    same = overlap(square(40, 40), square(40, 40))
    assert (same.dice, same.iou, same.boundary, same.boundary_95) == (1.0, 1.0, 0.0, 0.0)


def test_an_empty_outline_has_no_edge():
    nothing = np.zeros((100, 100), bool)
    assert overlap(nothing, square(1, 1)).dice == 0.0
    assert overlap(nothing, square(1, 1)).boundary is None
    assert overlap(nothing, nothing).dice == 1.0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 70), st.integers(0, 70))
def test_overlap_has_no_direction(a, b, c, d):
    one, two = square(a, b), square(c, d)
    forth, back = overlap(one, two), overlap(two, one)
    assert (forth.dice, forth.iou) == (back.dice, back.iou)
    assert forth.boundary == pytest.approx(back.boundary)
    assert forth.dice == pytest.approx(2 * forth.iou / (1 + forth.iou))


# --- doubt and goals


def test_doubts_are_counted_with_their_reasons():
    films = (
        seen(1, "covid"),
        seen(2, "normal", None, reason="undecodable"),
        seen(3, "normal", outcome=Outcome.INCONCLUSIVE, reason="low_confidence"),
    )
    everything = outcomes(films)[0]
    assert everything.group == "all films"
    shares = (everything.analyzed, everything.inconclusive, everything.not_analyzed)
    assert [share.value for share in shares] == pytest.approx([1 / 3] * 3)
    assert {(each.outcome, each.reason) for each in everything.why} == {
        ("analyzed", ""),
        ("not_analyzed", "undecodable"),
        ("inconclusive", "low_confidence"),
    }


def test_other_diseases_are_foreign_material():
    films = [seen(n, "normal", (0.1, 0.1, 0.8), distance=n / 10) for n in range(5)]
    flag = {"outcome": Outcome.INCONCLUSIVE, "reason": "out_of_distribution"}
    films += [seen(10, "other", distance=0.9, **flag), seen(11, "other", distance=0.25)]
    films += [seen(12, "pneumonia", source="kermany", distance=0.95)]
    other, within, children = foreign(films, THRESHOLD)
    assert (other.films, other.against_films) == (2, 5)
    assert other.flagged.value == other.flagged_distance.value == 0.5
    assert other.auc.value == pytest.approx((5 + 3) / 10)
    assert other.called == (("covid19", 1),)
    assert within.group == "other disease, source a"
    assert children.auc.value == 1.0


def test_a_lateral_with_probabilities_is_named():
    found = laterals((seen(1, said=None), seen(2)))
    assert found.without_probabilities.value == 0.5
    assert found.answered == ("a/2, analyzed",)
    assert laterals(()).films == 0


def test_a_goal_is_reached_with_its_whole_interval():
    def enough(value):
        return value >= 0.9

    assert judge(Estimate(0.95, 0.91, 0.97), enough) == "yes"
    assert judge(Estimate(0.95, 0.85, 0.97), enough) == "value only"
    assert judge(Estimate(0.95, None, None), enough) == "value only"
    assert judge(Estimate(0.85, 0.80, 0.95), enough) == "no"
    assert judge(Estimate(None, None, None), enough) == "unknown"
