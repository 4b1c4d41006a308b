"""The segmenter's exam in a hospital it never saw: nothing of it is learned from."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from covidnet_node.errors import BadConfig
from covidnet_node.training import segmenter
from covidnet_node.training.dataset import Split, open_folder
from covidnet_node.training.unseen_lungs import (
    UnseenOrder,
    as_json,
    measure_unseen_lungs,
    unseen_lines,
)
from tests.tiny_medicine import draw_folder, tiny_recipe

ORDER = UnseenOrder(1.0, "covidnet-node train unseen-lungs", datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The drawn films; Cohen's first two of every split come from the place left out."""
    folder = draw_folder(tmp_path_factory.mktemp("data"))
    seen = [film.id for film in folder.films if film.source == "cohen"][::2]
    films = tuple(
        replace(film, place="Hannover Medical School, Germany") if film.id in seen else film
        for film in folder.films
    )
    return replace(folder, films=films)


def test_nothing_of_the_place_is_learned_from(data, tmp_path, monkeypatch):
    shown = []
    real = segmenter.with_masks

    def with_masks(folder, split):
        found = real(folder, split)
        shown.extend(found)
        return found

    monkeypatch.setattr(segmenter, "with_masks", with_masks)
    (found,) = measure_unseen_lungs(data, tmp_path, ORDER, tiny_recipe())
    assert shown
    assert not any("Hannover" in film.place for film in shown)
    unseen = [film for film in data.films if "Hannover" in film.place and film.has_mask]
    assert (found.films, found.convention, found.epochs) == (len(unseen), "lung+heart", 1)
    here = [film for film in data.films if film.has_mask and film.split is Split.TRAIN]
    assert found.trained_on == len([film for film in here if film not in unseen])
    assert 0.0 <= found.worst_dice <= found.dice.value <= 1.0
    text = "\n".join(unseen_lines((found,), ORDER))
    assert found.dice.words() in text
    assert json.loads(as_json((found,)))[0]["dice"]["value"] == found.dice.value


def test_a_place_that_is_not_there_is_named(data, tmp_path):
    recipe = tiny_recipe()
    recipe = replace(recipe, segmenter=replace(recipe.segmenter, unseen_place="Atlantis"))
    with pytest.raises(BadConfig, match="Atlantis"):
        measure_unseen_lungs(data, tmp_path, ORDER, recipe)


def test_the_place_is_read_from_the_manifest(tmp_path):
    draw_folder(tmp_path)
    file = tmp_path / "manifest.csv"
    first, *rows = file.read_text().splitlines()
    details = ['"Viral; age=4; location=Milan, Italy; offset=0"', "Normal", ""]
    lines = [f"{row},{details[index % 3]}" for index, row in enumerate(rows)]
    file.write_text("\n".join([f"{first},finding_detail", *lines]) + "\n")
    places = [film.place for film in open_folder(tmp_path).films]
    assert places[:3] == ["Milan, Italy", "", ""]
