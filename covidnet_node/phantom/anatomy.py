"""The anatomy of the synthetic chest X-ray: how much tissue each ray passes through.

Everything is a formula in body coordinates: `u` runs across the image from the midline (the
patient's left is positive, as on a frontal film), `v` down from 0 to 1; the shorter side of
the image is 1. Thickness is in centimeters of water. No real image was used.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Plane = NDArray[np.float64]

_RIBS = 10
_AIR = 0.74
"""Share of an aerated lung that is air."""
_TIP = 0.135
"""Distance of a lung's tip from the midline."""


@dataclass(frozen=True, slots=True)
class Body:
    """One person: the numbers that a seed varies."""

    u: Plane
    v: Plane
    scale: float
    """Pixels per unit of u and v."""
    lung_width: tuple[float, float]
    """Half-widths of the image's left (patient's right) and right lung."""
    dome: tuple[float, float]
    """Height v of each diaphragm dome."""
    apex: float
    heart: float
    """Factor on the size of the heart."""
    depth: float
    """Front-to-back thickness of the trunk, cm."""


@dataclass(frozen=True, slots=True)
class Chest:
    """Thickness maps, (rows, columns) each."""

    tissue: Plane
    """Water-equivalent cm along each ray, lungs' air already taken out."""
    air: Plane
    """The part taken out for air, cm: what an opacity can fill again."""
    lungs: NDArray[np.bool_]


def draw_chest(body: Body, rng: np.random.Generator) -> Chest:
    """Trunk, lungs, heart, bones and vessels of one body."""
    sides = [_lung(body, side) for side in (0, 1)]
    lungs = np.maximum(sides[0], sides[1])
    depth = _lung_depth(body) * lungs
    vessels = _vessels(body, rng) * lungs
    texture = _cloud(body.u.shape, rng, body.scale * 0.007) * 0.02
    air = depth * _AIR * np.clip(1.0 - texture, 0.0, 1.2)
    tissue = _trunk(body) - air - _airways(body) + _bones(body, lungs) + 2.4 * vessels
    return Chest(tissue, air, lungs > 0.5)


def fill_diffusely(body: Body, rng: np.random.Generator) -> Plane:
    """Share of air, 0 to 1, that bilateral, peripheral and basal ground glass replaces."""
    share = np.zeros_like(body.u)
    for side, sign in enumerate((-1, 1)):
        for _ in range(6):
            height = rng.uniform(0.38, 0.74)
            lateral = rng.uniform(0.62, 0.98) * body.lung_width[side]
            radius = rng.uniform(0.045, 0.085)
            spot = (body.u - sign * lateral) ** 2 + ((body.v - height) * 0.8) ** 2
            share = np.maximum(share, np.exp(-spot / (2 * radius**2)) * rng.uniform(0.5, 0.8))
    mottle = 0.8 + 0.35 * _cloud(body.u.shape, rng, body.scale * 0.018)
    return np.clip(share * mottle, 0.0, 0.85)


def fill_lobe(body: Body, rng: np.random.Generator) -> Plane:
    """Share of air, 0 to 1, that the consolidation of one lobe replaces."""
    side = int(rng.integers(2))
    sign = (-1, 1)[side]
    fissure = rng.uniform(0.47, 0.56)
    across = body.u * sign / body.lung_width[side]
    slope = fissure + 0.06 * (across - 0.5)
    upper = rng.random() < 0.3
    below = _edge((slope - body.v) if upper else (body.v - slope), 0.012)
    mottle = 0.82 + 0.16 * _cloud(body.u.shape, rng, body.scale * 0.03)
    return np.clip(below * _edge(body.u * sign, 0.01) * mottle, 0.0, 0.95)


def _edge(distance: Plane, softness: float) -> Plane:
    """0 outside, 1 inside, over about twice `softness`."""
    smooth: Plane = 1.0 / (1.0 + np.exp(-np.clip(distance / (softness * 0.5), -40, 40)))
    return smooth


def _cloud(shape: tuple[int, ...], rng: np.random.Generator, size: float) -> Plane:
    """Smooth noise of mean 0 and deviation 1 with grains of `size` pixels."""
    noise = gaussian_filter(rng.standard_normal(shape), max(size, 0.5), mode="wrap")
    cloud: Plane = (noise - noise.mean()) / (noise.std() + 1e-12)
    return cloud


def _trunk(body: Body) -> Plane:
    """Neck, shoulders and trunk without air; arms hang outside the field."""
    marks = [-0.3, -0.02, 0.04, 0.09, 0.15, 0.24, 0.40, 0.62, 0.80, 1.3]
    widths = [0.10, 0.11, 0.17, 0.38, 0.55, 0.57, 0.49, 0.465, 0.455, 0.47]
    half = np.interp(body.v, marks, widths)
    depths = np.interp(
        body.v, [-0.1, 0.03, 0.12, 0.3, 0.62, 0.8, 1.1], [0.5, 0.5, 0.55, 0.84, 1.0, 1.08, 1.1]
    )
    inside = np.clip(1.0 - np.abs(body.u / half) ** 2.6, 0.0, 1.0)
    muscle = 1.6 * np.exp(-(((np.abs(body.u) - 0.43) / 0.07) ** 2 + ((body.v - 0.22) / 0.13) ** 2))
    trunk: Plane = gaussian_filter(body.depth * depths * inside**0.5 + muscle * (inside > 0), 1.0)
    return trunk


def _lung(body: Body, side: int) -> Plane:
    """One lung field, 0 to 1, bounded by chest wall, apex, diaphragm and mediastinum."""
    sign = (-1, 1)[side]
    across = body.u * sign
    wall = _wall(body, body.lung_width[side])
    wall = wall * (1.0 - 0.05 * np.clip((body.v - 0.62) / 0.2, 0.0, 1.0) ** 2)
    offset = across - 0.5 * body.lung_width[side]
    dome = body.dome[side] + np.where(offset > 0, 3.1, 1.4) * offset**2
    field = _edge(wall - across, 0.008) * _edge(dome - body.v, 0.007)
    field = field * _edge(body.v - body.apex, 0.008) * _edge(across - _medial(body), 0.008)
    return field * (1.0 - _mediastinum(body, sign))


def _wall(body: Body, width: float | Plane) -> Plane:
    """How far from the midline the chest wall bounds a lung of the given half-width."""
    height = np.clip((0.80 - body.v) / (0.80 - body.apex), 0.0, 1.0)
    wall: Plane = _TIP + (width - _TIP) * (1.0 - height**3.4) ** 0.62
    return wall


def _medial(body: Body) -> Plane:
    """How far from the midline a lung begins: its tip is round, not drawn to the spine."""
    above = np.clip((body.apex + 0.11 - body.v) / 0.11, 0.0, 1.0)
    medial: Plane = _TIP * (1.0 - np.sqrt(1.0 - above**2))
    return medial


def _lung_depth(body: Body) -> Plane:
    """Front-to-back extent of the lungs, cm: thin at the wall and the apex."""
    wall = _wall(body, np.where(body.u < 0, body.lung_width[0], body.lung_width[1]))
    inside = np.clip(1.0 - np.abs(body.u / wall) ** 3, 0.0, 1.0) ** 0.5
    apical = np.clip((body.v - body.apex) / 0.30, 0.0, 1.0) ** 0.6
    return 0.74 * body.depth * inside * (0.34 + 0.66 * apical)


def _mediastinum(body: Body, sign: int) -> Plane:
    """Great vessels, aortic knob and heart as they cover one lung, 0 to 1."""
    u, v = body.u, body.v
    middle = np.interp(v, [0.0, 0.12, 0.3, 0.45, 0.8], [0.075, 0.068, 0.075, 0.072, 0.075])
    cover = _edge(middle - np.abs(u), 0.010)
    size = body.heart
    if sign > 0:
        knob = 1.0 - np.hypot((u - 0.045) / 0.045, (v - 0.315) / 0.045)
        trunk = 1.0 - np.hypot((u - 0.045) / 0.055, (v - 0.41) / 0.075)
        tilt = 0.80
        du, dv = u - 0.045, v - 0.590
        along = du * np.cos(tilt) + dv * np.sin(tilt)
        aside = -du * np.sin(tilt) + dv * np.cos(tilt)
        ventricle = 1.0 - np.hypot(along / (0.185 * size), aside / (0.118 * size))
        shapes = [(knob, 0.3), (trunk, 0.3), (ventricle, 0.07)]
    else:
        atrium = 1.0 - np.hypot((u + 0.022) / (0.088 * size), (v - 0.60) / 0.125)
        shapes = [(atrium, 0.08)]
    for shape, softness in shapes:
        cover = np.maximum(cover, _edge(shape, softness))
    return cover


def _airways(body: Body) -> Plane:
    """Trachea, main bronchi and the stomach's air bubble, cm of air."""
    u, v = body.u, body.v
    trachea = _edge(0.017 - np.abs(u + 0.004), 0.008) * _edge(0.355 - v, 0.02)
    fork = np.abs(v - 0.345 - 0.75 * np.abs(u))
    bronchi = _edge(0.012 - fork, 0.008) * _edge(0.085 - np.abs(u), 0.02) * _edge(v - 0.34, 0.01)
    bubble = 1.0 - np.hypot((u - 0.175) / 0.075, (v - body.dome[1] - 0.07) / 0.038)
    return 2.0 * trachea + 1.3 * bronchi + 4.5 * _edge(bubble, 0.25)


def _bones(body: Body, lungs: Plane) -> Plane:
    """Spine, ribs, clavicles and shoulder blades, extra cm of water."""
    u, v = body.u, body.v
    column = _edge(0.036 - np.abs(u), 0.008)
    discs = 0.85 + 0.15 * np.tanh(2.5 * np.sin(2 * np.pi * (v + 0.01) / 0.062))
    pedicles = np.exp(-(((np.abs(u) - 0.024) / 0.007) ** 2)) * np.clip(discs - 0.7, 0.0, 1.0) * 1.4
    bones = 3.6 * column * discs + 1.6 * pedicles
    bones += sum(_rib(body, number) for number in range(_RIBS)) * (0.45 + 0.55 * lungs)
    reach = np.abs(u) - 0.035
    line = 0.172 - 0.13 * reach - 0.022 * np.sin(reach / 0.38 * 2 * np.pi)
    clavicle = _tube((v - line) / 1.02, 0.0155) * _edge(reach, 0.008) * _edge(0.40 - reach, 0.02)
    blade = _edge(np.abs(u) - 0.355 - 0.16 * (v - 0.2), 0.02) * _edge(0.43 - v, 0.03)
    blade = blade * _edge(v - 0.13, 0.02) * _edge(0.47 - np.abs(u) - 0.30 * (v - 0.2), 0.03)
    return bones + 3.0 * clavicle + 1.6 * blade


def _rib(body: Body, number: int) -> Plane:
    """One pair of ribs: tilted rings, which a frontal projection shows as flat ellipses.

    The upper half is the posterior arc, the lower half the fainter anterior one, which ends
    where cartilage begins.
    """
    share = number / (_RIBS - 1)
    center = body.apex + 0.055 + 0.62 * share
    half = np.where(body.u < 0, body.lung_width[0], body.lung_width[1])
    half = half * (1.015 - 0.60 * (1.0 - share) ** 3.2)
    drop = 0.052 + 0.050 * share
    # The posterior arc leaves the spine upward; tilting the ring lowers its outer end.
    height = body.v - center - 0.085 * (np.abs(body.u) / half) ** 2 * (0.4 + 0.6 * share)
    ring = np.hypot(body.u / half, height / drop)
    slope = np.hypot(body.u / half**2, height / drop**2) / np.maximum(ring, 1e-6)
    distance = (ring - 1.0) / np.maximum(slope, 1e-6)
    front = _edge(height, 0.006)
    ends = _edge(np.abs(body.u) - 0.52 * half, 0.02)
    strength = (1.0 - front) + 0.55 * front * ends
    return 1.5 * _tube(distance, 0.0145) * strength * _edge(np.abs(body.u) - 0.03, 0.006)


def _tube(distance: Plane, radius: float) -> Plane:
    """A hollow cylinder seen from the side: dense rims, lighter marrow; about 1 at most."""
    outer = np.sqrt(np.clip(1.0 - (distance / radius) ** 2, 0.0, None))
    inner = np.sqrt(np.clip(1.0 - (distance / (0.72 * radius)) ** 2, 0.0, None))
    return 1.25 * outer - 0.62 * inner


def _vessels(body: Body, rng: np.random.Generator) -> Plane:
    """Hila and the pulmonary vessels that branch from them, 0 to about 1."""
    rows, columns = body.u.shape
    canvas = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    # Body coordinates are turned and shifted against the image; invert the affine map.
    step_u, step_v = body.u[0, 1] - body.u[0, 0], body.v[0, 1] - body.v[0, 0]
    turn = np.array([[step_u, -step_v], [step_v, step_u]])
    origin = np.array([body.u[0, 0], body.v[0, 0]])
    back = np.linalg.inv(turn)

    def grow(start: NDArray[np.float64], angle: float, width: float, length: float) -> None:
        if width < 0.0016:
            return
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(back @ (point - origin)) for point in (start, end)]
        shade = int(255 * min(1.0, width / 0.011))
        draw.line(ends, fill=shade, width=max(1, round(width * body.scale)))
        grow(end, angle + rng.normal(0.0, 0.2), width * 0.84, length * 0.94)
        if rng.random() < 0.75:
            side = rng.choice((-1, 1)) * rng.uniform(0.35, 0.8)
            grow(end, angle + side, width * 0.66, length * 0.86)

    for sign in (-1, 1):
        hilum = np.array([sign * 0.085, 0.43 + 0.012 * sign])
        for angle in np.linspace(-1.3, 1.4, 9):
            turned = angle if sign > 0 else np.pi - angle
            grow(hilum, turned + rng.normal(0, 0.1), rng.uniform(0.007, 0.012), 0.045)
    drawn = np.asarray(canvas, dtype=np.float64) / 255.0
    hila = sum(
        np.exp(-(((body.u - sign * 0.095) / 0.026) ** 2 + ((body.v - 0.435) / 0.055) ** 2))
        for sign in (-1, 1)
    )
    vessels: Plane = gaussian_filter(drawn, 0.0016 * body.scale) + 0.6 * hila
    return vessels
