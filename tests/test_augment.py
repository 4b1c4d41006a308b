"""What is varied of a film: it stays a film, and shows what it is meant to show."""

import torch

from covidnet_node.training import augment


def test_augmentation_keeps_shape_and_range():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 1, 32, 32, generator=generator)
    for changed in (
        augment.regrade(images, generator),
        augment.cover(images, 1.0, generator),
        augment.invert_some(images, 0.5, generator),
        augment.move(images, 1.0, generator),
        augment.restyle(images, 1.0, generator),
        augment.refilter(images, 1.0, generator),
        augment.coarsen(images, 1.0, generator),
    ):
        assert changed.shape == images.shape
        assert changed.min() >= 0
        assert changed.max() <= 1
    assert torch.equal(augment.invert_some(images, 1.1, generator), 1 - images)


def test_another_scanner_is_drawn_by_seed_and_sometimes_not_at_all():
    images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    for change in (augment.restyle, augment.refilter, augment.coarsen):
        one, two, other = (
            change(images, 1.0, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        assert (one - images).abs().max() > 0.01
        same = change(images, 0.0, torch.Generator().manual_seed(1))
        assert torch.allclose(same, images, atol=1e-5)


def test_coarse_films_have_lost_their_finest_grain():
    checks = (torch.arange(32) % 2).float().expand(3, 1, 32, 32)
    coarse = augment.coarsen(checks, 1.0, torch.Generator().manual_seed(1))
    assert coarse[..., 4:-4, 4:-4].std() < 0.5 * checks.std()


def test_a_rough_outline_is_near_the_outline_and_drawn_by_seed():
    inside = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
    inside[..., 16:48, 16:48] = True
    rough, again, other = (
        augment.roughen(inside, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert rough.shape == inside.shape
    assert rough.dtype == torch.bool
    assert torch.equal(rough, again)
    assert not torch.equal(rough, other)
    assert not torch.equal(rough, inside)
    assert rough[..., 24:40, 24:40].all()
    assert not rough[..., :8, :].any()


def two_lungs(count=32, side=96):
    """Dark films with two upright lungs; masks (count, 1, side, side), 0 or 1."""
    lungs = torch.zeros(count, 1, side, side)
    lungs[:, :, 20:76, 14:40] = lungs[:, :, 20:76, 56:82] = 1.0
    return torch.full_like(lungs, 0.2), lungs


def test_a_consolidation_whitens_a_part_of_one_lung():
    films, lungs = two_lungs()
    generator = torch.Generator().manual_seed(1)
    white = augment.consolidate(films, lungs, 1.0, generator) - films
    assert float(white.min()) >= 0.0
    assert float((white * (1 - lungs)).max()) < 0.5 * float(white.max())
    left, right = white[..., :48].amax((1, 2, 3)), white[..., 48:].amax((1, 2, 3))
    assert not bool(((left > 0.05) & (right > 0.05)).any())
    assert bool((left > 0.05).any())
    assert bool((right > 0.05).any())
    touched = (white > 0.05).float().sum((1, 2, 3)) / lungs.sum((1, 2, 3))
    assert float((touched > 0.02).float().mean()) > 0.9
    assert float(touched.max()) > 0.3
    assert torch.equal(augment.consolidate(films, lungs, 0.0, generator), films)


def test_no_lungs_have_no_consolidation():
    films, lungs = two_lungs()
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(augment.consolidate(films, 0 * lungs, 1.0, generator), films)


def test_a_border_makes_the_film_smaller_and_its_outline_with_it():
    films, lungs = two_lungs()
    films = torch.where(lungs > 0.5, 0.1, films)
    generator = torch.Generator().manual_seed(1)
    framed, moved = augment.border(films, lungs, 1.0, generator)
    assert framed.shape == films.shape
    assert float(framed.min()) >= 0.0
    assert float(framed.max()) <= 1.0
    assert bool((moved.sum((1, 2, 3)) < lungs.sum((1, 2, 3))).all())
    inside = moved > 0.99
    assert torch.allclose(framed[inside], torch.tensor(0.1), atol=0.02)
    kept, same = augment.border(films, lungs, 0.0, generator)
    assert torch.equal(kept, films)
    assert torch.equal(same, lungs)
