"""The medicine on one page: every image ends in an answer."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from covidnet_node.analyze import INVERTED, analyze
from covidnet_node.case import Outcome, Reason
from covidnet_node.errors import NotAnalyzed
from covidnet_node.imaging.display import to_display
from covidnet_node.intended_use import CLASSES
from covidnet_node.look import Picture, look, look_at_picture, not_analyzed
from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.models.networks import load_networks
from covidnet_node.phantom.film import draw_phantom, phantom_dataset
from tests.tiny_medicine import drawn_chest, sighted, tiny_weights


@pytest.fixture(scope="module")
def networks(module_path):
    """Tiny, sees dark ellipses as lungs, and believes all it sees."""
    return limits(sighted(tiny_weights(module_path / "tiny")))


@pytest.fixture(scope="module")
def shipped():
    folder = weights_folder(None)
    return load_networks(load_manifest(folder), folder, "cpu")


def limits(networks, confidence=0.0, disagreement=1.0, distance=1.0):
    manifest = networks.manifest
    ensemble = replace(
        manifest.ensemble, least_confidence=confidence, most_disagreement=disagreement
    )
    changed = replace(
        manifest, ensemble=ensemble, distance=replace(manifest.distance, limit=distance)
    )
    return replace(networks, manifest=changed)


def picture(display):
    return Picture(display, "pixels", "identity", ("a note",), 0.25)


def test_an_answer_is_complete(networks):
    display, lungs = drawn_chest()
    answer = analyze(picture(display), networks)
    assert answer.outcome is Outcome.ANALYZED
    assert answer.reason is None
    assert answer.display is display
    assert answer.lungs.shape == display.shape
    assert 2 * (answer.lungs & lungs).sum() / (answer.lungs.sum() + lungs.sum()) > 0.9
    assert answer.lung_area_fraction == pytest.approx(lungs.mean(), abs=0.03)
    assert [member.name for member in answer.members] == ["A", "B"]
    assert answer.explanation.heatmap.shape == display.shape
    assert answer.explanation.heatmap.min() >= 0.0
    assert answer.explanation.heatmap.max() <= 1.0
    assert answer.notes == ("a note",)


def test_a_border_around_the_film_changes_nothing_but_the_places(networks):
    display, _ = drawn_chest()
    framed = np.pad(display, ((90, 60), (40, 80)))
    plain, answer = (analyze(picture(each), networks) for each in (display, framed))
    film = (slice(90, 390), slice(40, 240))
    assert answer.lungs.shape == answer.explanation.heatmap.shape == framed.shape
    assert answer.lungs.sum() == answer.lungs[film].sum()
    both = (answer.lungs[film] & plain.lungs).sum()
    assert 2 * both / (answer.lungs.sum() + plain.lungs.sum()) > 0.98
    assert answer.lung_area_fraction == answer.lungs.mean()
    moved = answer.explanation.heatmap[film]
    assert moved.sum() == pytest.approx(answer.explanation.heatmap.sum())
    assert np.abs(moved - plain.explanation.heatmap).mean() < 0.05


@pytest.mark.parametrize("threshold", [0.0, 0.999])
def test_the_explained_class_is_the_one_called(networks, threshold):
    manifest = networks.manifest
    ensemble = replace(manifest.ensemble, covid19_threshold=threshold)
    strict = replace(networks, manifest=replace(manifest, ensemble=ensemble))
    answer = analyze(picture(drawn_chest()[0]), strict)
    assert answer.explanation.target == answer.probabilities.called(threshold)
    assert (answer.explanation.target == "covid19") == (threshold == 0.0)
    assert sum(answer.probabilities.of(name) for name in CLASSES) == pytest.approx(1.0)


def test_every_stage_is_timed(networks):
    seconds = analyze(picture(drawn_chest()[0]), networks).seconds
    assert list(seconds) == ["decode", "segment", "classify", "explain", "total"]
    assert seconds["decode"] == 0.25
    assert seconds["total"] == pytest.approx(sum(list(seconds.values())[:-1]))


def test_the_same_image_gives_the_same_answer(networks):
    first, second = (analyze(picture(drawn_chest()[0]), networks) for _ in range(2))
    assert first.probabilities == second.probabilities
    assert np.array_equal(first.explanation.heatmap, second.explanation.heatmap)


@pytest.mark.parametrize(
    ("limited", "reason"),
    [
        ({"distance": -1.0}, Reason.OUT_OF_DISTRIBUTION),
        ({"disagreement": -1.0}, Reason.MEMBERS_DISAGREE),
        ({"confidence": 1.1}, Reason.LOW_CONFIDENCE),
        ({"distance": -1.0, "disagreement": -1.0}, Reason.OUT_OF_DISTRIBUTION),
    ],
)
def test_doubt_is_inconclusive_but_shown(networks, limited, reason):
    answer = analyze(picture(drawn_chest()[0]), limits(networks, **limited))
    assert answer.outcome is Outcome.INCONCLUSIVE
    assert answer.reason is reason
    assert answer.detail
    assert answer.probabilities is not None
    assert answer.explanation is not None


@pytest.mark.parametrize("gray", [0, 128, 255])
def test_without_lungs_there_are_no_probabilities(networks, gray):
    answer = analyze(picture(np.full((300, 260), gray, np.uint8)), networks)
    assert answer.outcome is Outcome.NOT_ANALYZED
    assert answer.reason is Reason.NO_PLAUSIBLE_LUNGS
    assert answer.detail
    assert answer.probabilities is answer.explanation is answer.lungs is None
    assert answer.display is not None
    assert answer.notes == ("a note",)


def test_a_broken_image_is_not_analyzed():
    dataset = Dataset()
    dataset.Rows = dataset.Columns = 16
    with pytest.raises(NotAnalyzed) as caught:
        look(dataset)
    answer = not_analyzed(caught.value.reason, caught.value.detail, None)
    assert answer.outcome is Outcome.NOT_ANALYZED
    assert answer.reason is Reason.UNDECODABLE
    assert answer.display is None


def test_look_shows_what_the_display_pipeline_shows():
    dataset = phantom_dataset(1, rows=128, columns=96)
    seen, again = look(phantom_dataset(1, rows=128, columns=96)), look(dataset)
    assert seen.display.shape == (128, 96)
    assert np.array_equal(seen.display, to_display(dataset, dataset.pixel_array).image)
    assert (seen.pixel_digest, seen.identity_digest) == (again.pixel_digest, again.identity_digest)
    assert len(seen.pixel_digest) == 64
    assert seen.seconds > 0


def test_a_picture_file_is_read_as_shown(tmp_path):
    display, _ = drawn_chest()
    Image.fromarray(display).save(tmp_path / "chest.png")
    seen = look_at_picture(tmp_path / "chest.png")
    assert np.array_equal(seen.display, display)
    assert seen.identity_digest == ""
    (tmp_path / "no.png").write_bytes(b"not a picture")
    with pytest.raises(NotAnalyzed):
        look_at_picture(tmp_path / "no.png")


@pytest.mark.parametrize("opacity", ["none", "diffuse", "lobar"])
@pytest.mark.parametrize("shape", [(1024, 1024), (700, 900)])
def test_the_shipped_weights_find_a_phantoms_lungs(shipped, opacity, shape):
    phantom = draw_phantom(3, opacity, *shape)
    display = (phantom.image >> 8).astype(np.uint8)
    answer = analyze(picture(display), shipped)
    assert answer.outcome is not Outcome.NOT_ANALYZED, answer.detail
    found = answer.lungs
    assert 2 * (found & phantom.lungs).sum() / (found.sum() + phantom.lungs.sum()) > 0.8
    assert answer.explanation.heatmap.shape == shape


def test_a_phantoms_negative_is_turned_back(shipped):
    display = (draw_phantom(3).image >> 8).astype(np.uint8)
    upright, negative = analyze(picture(display), shipped), analyze(picture(255 - display), shipped)
    assert INVERTED not in upright.notes
    assert INVERTED in negative.notes
    # Not equal: the outline of a negative differs a little.
    assert negative.probabilities.covid19 == pytest.approx(upright.probabilities.covid19, abs=0.3)


def test_the_shipped_weights_say_what_they_are():
    manifest = load_manifest(weights_folder(None))
    assert "non-commercial" in manifest.licence.lower()
    assert len(manifest.sources) >= 5
    assert manifest.metrics
    assert manifest.algorithm.notice or not manifest.provisional


@pytest.mark.shared
def test_no_dog_is_classified(shared, shipped):
    from covidnet_node.imaging.decode import read_source  # noqa: PLC0415 - beside its one use

    answer = analyze(look(read_source(shared / "dicom" / "dx_dog_thorax_mono1.dcm")), shipped)
    assert answer.outcome is Outcome.NOT_ANALYZED


@pytest.mark.shared
def test_nothing_is_concluded_from_teeth(shared, shipped):
    """Which the node does not admit; `covidnet-node analyze` looks at what it is given."""
    from covidnet_node.imaging.decode import read_source  # noqa: PLC0415 - beside its one use

    answer = analyze(look(read_source(shared / "dicom" / "cr_teeth_modality_lut.dcm")), shipped)
    assert answer.outcome in {Outcome.NOT_ANALYZED, Outcome.INCONCLUSIVE}
