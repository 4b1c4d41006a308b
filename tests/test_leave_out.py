"""Leave-one-group-out: nothing of a group teaches its run, and what is said of the figures."""

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from covidnet_node.cli import app
from covidnet_node.errors import BadConfig
from covidnet_node.training import stages
from covidnet_node.training.crops import load_crops
from covidnet_node.training.dataset import Split, belongs
from covidnet_node.training.evaluation.card import check_card, write_block
from covidnet_node.training.evaluation.leave_out_card import LEAVE_OUT, lines
from covidnet_node.training.evaluation.leave_out_figures import as_json, measure_left_out, scope
from covidnet_node.training.leave_out import LeaveOutOrder, leave_out, remaining, to_be_scored
from covidnet_node.training.recipe import load_recipe
from covidnet_node.training.scores import Score
from tests.tiny_medicine import copy_runs, draw_folder, tiny_recipe, tiny_recipe_file

ORDER = LeaveOutOrder(
    member="B",
    minutes=30.0,
    self_supervised=False,
    command="covidnet-node train leave-out",
    at=datetime(2026, 1, 1, tzinfo=UTC),
)
DONE = ("collections", "nih", "shenzhen")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def lungs(data, module_path):
    """A runs folder in which only the lungs have been cut out."""
    folder = module_path / "lungs"
    stages.segmenter(data.path, folder, 1.0, tiny_recipe())
    return folder


@pytest.fixture(scope="module")
def measured(data, lungs, module_path):
    """All groups, once: the runs folder and the figures."""
    folder = module_path / "runs"
    folder.mkdir()
    shutil.copy(lungs / "crops.npz", folder)
    return folder, measure_left_out(data, folder, ORDER, tiny_recipe())


@pytest.fixture
def runs(measured, tmp_path):
    """A copy of the finished runs, to be spoiled."""
    return copy_runs(measured[0], tmp_path / "runs")


def group(name):
    return next(each for each in load_recipe().groups if each.name == name)


def curves(runs):
    return {path: path.read_text() for path in sorted(runs.rglob("curve.csv"))}


# --- which films


def test_the_shipped_groups_are_those_of_the_card():
    held = [source for each in load_recipe().groups for source in each.holds]
    assert len(held) == len(set(held)) == 7
    assert "kermany" not in held


def test_a_part_of_a_source_can_be_left_out(data):
    film = replace(data.films[0], source="radiography", label="covid")
    assert belongs(film, group("radiography-covid").holds)
    assert not belongs(film, group("nih").holds)
    assert belongs(replace(film, label="normal"), group("nih").holds)


@pytest.mark.parametrize("name", DONE)
def test_nothing_of_a_group_remains_in_any_split(data, name):
    rest = remaining(data, group(name).holds)
    gone = set(data.films) - set(rest.films)
    assert {film.source for film in gone}
    assert all(belongs(film, group(name).holds) for film in gone)
    assert not any(belongs(film, group(name).holds) for film in rest.films)


def test_copies_of_a_group_in_other_sources_go_too(data):
    taken, kept = (
        next(film for film in data.films if film.source == source) for source in ("nih", "shenzhen")
    )
    copied = replace(data, films=(*data.films, replace(kept, id="copy", patient=taken.patient)))
    assert "copy" not in {film.id for film in remaining(copied, group("nih").holds).films}


def test_a_class_that_validation_lacks_is_lent_by_training_patients_only(data):
    """Radiography has no validation films: without the collections no COVID-19 would be there."""
    film = next(film for film in data.films if film.split is Split.TRAIN)
    lenders = tuple(
        replace(film, id=f"r{n}", source="radiography", patient=f"p{n // 2}", label="covid")
        for n in range(40)
    )
    rest = remaining(replace(data, films=data.films + lenders), group("collections").holds)
    lent = [f for f in rest.films if f.source == "radiography" and f.split is Split.VAL]
    assert len(lent) == 4
    staying = [f for f in rest.films if f.source == "radiography" and f.split is Split.TRAIN]
    assert {f.patient for f in lent}.isdisjoint({f.patient for f in staying})
    others = [f for f in rest.films if f.source != "radiography"]
    assert set(others) <= set(data.films)


def test_every_labelled_adult_frontal_film_of_a_group_is_scored(data):
    lateral = replace(data.films[0], id="lateral", view="L", split=Split.NONE)
    films = to_be_scored(replace(data, films=(*data.films, lateral)), group("collections").holds)
    assert len(films) == 6
    assert {film.split for film in films} == {Split.TRAIN, Split.VAL, Split.TEST}
    assert not any(f.label == "other" for f in to_be_scored(data, group("shenzhen").holds))


def test_films_of_the_group_change_nothing_that_is_learned(data, lungs, tmp_path):
    """Other pictures for the group: the same weights and temperature, but other scores."""
    recipe = replace(tiny_recipe(), groups=(group("nih"),))
    order = replace(ORDER, self_supervised=True)
    crops = load_crops(lungs)
    sources = {film.key: film.source for film in data.films}
    theirs = np.array([sources[name] == "nih" for name in crops.ids])
    assert 0 < theirs.sum() < len(theirs)
    other = np.where(theirs[:, None, None], 255 - crops.lungs, crops.lungs)
    for name, pictures in (("one", crops.lungs), ("two", other)):
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / "crops.npz",
            ids=np.array(crops.ids),
            lungs=pictures,
            inside=crops.inside,
            outline=crops.outline,
            whole=crops.whole,
        )
    (one,), (two,) = (leave_out(data, tmp_path / name, order, recipe)[0] for name in ("one", "two"))
    for stage in ("selfsupervise-B", "pretrain-B", "member-B"):
        first, second = (
            torch.load(tmp_path / name / "leave-out" / "nih" / stage / "best.pt")
            for name in ("one", "two")
        )
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert one.result.temperature == two.result.temperature
    assert one.scores != two.scores
    assert [effort.stage for effort in one.result.efforts] == [
        "selfsupervise",
        "pretrain",
        "member",
    ]


# --- runs


def test_each_group_is_scored_by_its_own_run(data, measured):
    runs, figures = measured
    assert [run.group for run in figures.runs] == list(DONE)
    for run in figures.runs:
        folder = runs / "leave-out" / run.group
        with (folder / "scores.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == (
            "source id patient label view split covid19 pneumonia normal".split()  # noqa: SIM905 - as a row
        )
        films = to_be_scored(data, group(run.group).holds)
        assert {row["id"] for row in rows} == {film.id for film in films}
        assert run.scored == run.result.films == len(rows)
        assert all(
            sum(float(row[name]) for name in ("covid19", "pneumonia", "normal"))
            == pytest.approx(1.0, abs=1e-5)
            for row in rows
        )
        assert not (folder / "selfsupervise-B").exists()
        assert (folder / "crops.npz").is_symlink()


def test_a_run_without_a_class_works_and_says_so(measured):
    """Only Cohen has COVID-19 here, only Shenzhen normal films."""
    runs = {run.group: run.result for run in measured[1].runs}
    assert runs["collections"].training[0] == runs["collections"].validation[0] == 0
    assert runs["shenzhen"].training[2] == 0
    assert "0 / 2 / 2" in "\n".join(lines(measured[1]))


def test_a_finished_group_is_not_trained_again(data, runs):
    before = curves(runs)
    again = measure_left_out(data, runs, ORDER, tiny_recipe())
    assert curves(runs) == before
    assert [run.group for run in again.runs] == list(DONE)


def test_a_stopped_group_goes_on_where_it_was(data, runs):
    folder = runs / "leave-out" / "nih"
    scores, before = (folder / "scores.csv").read_text(), curves(runs)
    (folder / "scores.csv").unlink()
    shutil.rmtree(folder / "member-B")
    leave_out(data, runs, ORDER, tiny_recipe())
    assert (folder / "scores.csv").read_text() == scores
    after = curves(runs)
    assert after.keys() == before.keys()
    assert all(after[path] == before[path] for path in before if "member-B" not in path.parts)


def test_another_trial_in_the_same_folder_is_refused(data, runs):
    for order, recipe in (
        (replace(ORDER, member="A"), tiny_recipe()),
        (replace(ORDER, self_supervised=True), tiny_recipe()),
        (ORDER, replace(tiny_recipe(), seed=2)),
        (ORDER, replace(tiny_recipe(), pretrain=replace(tiny_recipe().pretrain, epochs=2))),
    ):
        with pytest.raises(BadConfig, match="begun with another"):
            leave_out(data, runs, order, recipe)
    (runs / "crops.npz").write_bytes(b"cut anew")
    with pytest.raises(BadConfig, match="begun with another"):
        leave_out(data, runs, ORDER, tiny_recipe())
    (runs / "leave-out" / "collections" / "trial.json").write_text("{")
    with pytest.raises(BadConfig, match="cannot be read"):
        leave_out(data, runs, ORDER, tiny_recipe())


def test_without_crops_the_remedy_is_named(data, tmp_path):
    with pytest.raises(BadConfig, match="train segmenter"):
        leave_out(data, tmp_path, ORDER, tiny_recipe())
    with pytest.raises(BadConfig, match="'C'"):
        leave_out(data, tmp_path, replace(ORDER, member="C"), tiny_recipe())


def test_groups_without_films_lungs_or_teachers_are_missing(data, lungs, tmp_path):
    crops = load_crops(lungs)
    sources = {film.key: film.source for film in data.films}
    keep = np.array([sources[name] != "shenzhen" for name in crops.ids])
    np.savez(
        tmp_path / "crops.npz",
        ids=np.array(crops.ids)[keep],
        **{name: getattr(crops, name)[keep] for name in ("lungs", "inside", "outline", "whole")},
    )
    everything = replace(group("nih"), name="all", holds=("nih", "cohen", "kermany"))
    groups = (group("radiography-covid"), group("shenzhen"), everything)
    figures = measure_left_out(data, tmp_path, ORDER, replace(tiny_recipe(), groups=groups))
    assert {each.group: each.why for each in figures.missing} == {
        "radiography-covid": "the data folder has no film of it",
        "shenzhen": "no film of it has plausible lungs",
        "all": "without it there is nothing to learn from",
    }
    assert figures.runs == figures.scopes == ()
    assert figures.goal.reached == "unknown"
    assert "Not all groups" in "\n".join(lines(figures))


# --- figures


def score(number, label, said, source="cohen", patient=""):
    return Score(source, str(number), patient or str(number), label, "PA", "test", *said)


def test_areas_and_accuracies_are_what_they_should_be():
    films = [
        score(1, "covid", (0.8, 0.1, 0.1)),
        score(2, "covid", (0.3, 0.4, 0.3)),
        score(3, "pneumonia", (0.5, 0.3, 0.2)),
        score(4, "pneumonia", (0.2, 0.7, 0.1)),
        score(5, "pneumonia", (0.1, 0.8, 0.1)),
    ]
    found = scope("some", films)
    assert found.auc.covid19.value == pytest.approx(5 / 6)
    assert found.auc.pneumonia.value == pytest.approx(5 / 6)
    assert found.auc.normal.value is None
    assert found.accuracy.value == pytest.approx(3 / 5)
    assert found.balanced_accuracy.value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.confusion == ((1, 1, 0), (1, 2, 0), (0, 0, 0))
    assert found.per_class == (2, 3, 0)
    assert found.patients == 5


def test_one_class_alone_has_no_area():
    found = scope("some", [score(n, "covid", (0.5, 0.3, 0.2)) for n in range(3)])
    assert found.auc.covid19.value is None
    assert found.accuracy.value == 1.0


def test_films_are_pooled_and_told_apart_by_group_and_source(measured):
    figures = measured[1]
    names = [each.name for each in figures.scopes]
    assert names[0] == "all left-out films"
    assert names[1] == "all left-out films without nih"
    assert {f"group {name}" for name in DONE} < set(names)
    assert {f"source {name}" for name in ("cohen", "nih", "shenzhen")} < set(names)
    assert figures.scopes[0].films == 18
    assert figures.scopes[0].auc.covid19.low is not None


def test_a_missing_group_leaves_the_goal_open(measured):
    figures = measured[1]
    assert [each.group for each in figures.missing] == ["radiography-covid"]
    assert figures.goal.reached == "unknown"
    text = "\n".join(lines(figures))
    assert "radiography-covid: the data folder has no film of it" in text
    assert "member B alone" in text
    assert "cohen and shenzhen" in text
    assert "**none**" in text
    assert json.loads(as_json(figures))["goal"]["reached"] == "unknown"


# --- card and command line


def test_only_the_block_of_a_card_is_rewritten(measured, tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text(f"# Mine\n\n{LEAVE_OUT.start}\nstale figures\n{LEAVE_OUT.end}\n\nmine too\n")
    for _ in range(2):
        write_block(card, LEAVE_OUT, lines(measured[1]))
    before, after = check_card(card, LEAVE_OUT)
    assert before == "# Mine\n\n"
    assert after == "\n\nmine too\n"
    assert "stale" not in card.read_text()
    assert measured[1].setup.data_sha256 in card.read_text()


def test_the_command_writes_card_and_json(data, runs, tmp_path):
    """The groups are finished: only their figures are made."""
    recipe = tiny_recipe_file(tmp_path / "recipe.toml")
    card, file = tmp_path / "CARD.md", tmp_path / "new" / "leave-out.json"
    words = ["train", "leave-out", "--data", str(data.path), "--runs", str(runs)]
    words += ["--recipe", str(recipe), "--card", str(card), "--json", str(file)]
    card.write_text("# no marks\n")
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, BadConfig)
    card.write_text(f"{LEAVE_OUT.start}\n{LEAVE_OUT.end}\n")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "AUC of COVID-19, all left-out films" in card.read_text()
    assert json.loads(file.read_text())["scopes"][0]["films"] == 18
