"""recipe.toml as frozen dataclasses: the one config of training."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from covidnet_node.case import CropRecipe
from covidnet_node.errors import BadConfig

SHIPPED = Path(__file__).with_name("recipe.toml")


@dataclass(frozen=True, slots=True)
class Stage:
    """How long and how hard one network is trained."""

    batch: int
    epochs: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class SegmenterRecipe:
    """What is trained to find the lungs."""

    architecture: str
    side: int
    stage: Stage
    unseen_place: str
    """Left out of training in `train unseen-lungs`, and measured on."""


@dataclass(frozen=True, slots=True)
class MaskingRecipe:
    """What is taken from a film that a trunk must restore."""

    mask_share: float
    """Of the square's patches, 0 to 1."""
    patch: int
    """Pixels along a side."""
    noise: float
    """Standard deviation on what is left, of the gray scale from 0 to 1."""
    stage: Stage


@dataclass(frozen=True, slots=True)
class MemberRecipe:
    """One network of the ensemble."""

    name: str
    architecture: str
    pretrained_on: str
    """`whole` images or `lungs`: on what it learned pneumonia first."""


@dataclass(frozen=True, slots=True)
class GroupRecipe:
    """Films that are left out of training together, because they share hospitals or copies."""

    name: str
    holds: tuple[str, ...]
    """`source`, or `source:label` for a part of it."""


@dataclass(frozen=True, slots=True)
class Label:
    """What the weights are called and what a reader must know of them."""

    name: str
    version: str
    """At most 16 characters."""
    provisional: bool
    notice: str


@dataclass(frozen=True, slots=True)
class Limits:
    """When the ensemble does not conclude."""

    least_confidence: float
    disagreement_quantile: float
    distance_limit: float


@dataclass(frozen=True, slots=True)
class LungsRecipe:
    """How it is learned what two lungs look like that can be read."""

    threshold: float
    """Probability at and above which a pixel is lung."""
    most_bridge: float
    """As in LungLimits, which it goes into as it is."""
    let_through: float
    """Share of validation's adults that the other limits together let through; 1 sets none."""


@dataclass(frozen=True, slots=True)
class ViewRecipe:
    """How it is learned what frontal chest films look like."""

    films: int
    """Of training, drawn by the seed."""
    directions: int
    """In which they are told to differ."""
    limit: float
    """Share of validation's films that must be let through, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All of recipe.toml."""

    seed: int
    threads: int
    segmenter: SegmenterRecipe
    crop: CropRecipe
    selfsupervise: MaskingRecipe
    pretrain: Stage
    classifier: Stage
    members: tuple[MemberRecipe, ...]
    groups: tuple[GroupRecipe, ...]
    """For leave-one-group-out; nothing that is shipped depends on them."""
    lungs: LungsRecipe
    view: ViewRecipe
    limits: Limits
    label: Label

    def member(self, name: str) -> MemberRecipe:
        """The member of that name; raises BadConfig."""
        for member in self.members:
            if member.name == name:
                return member
        raise BadConfig("recipe.toml", "member", f"has none named {name!r}")


def load_recipe(path: Path = SHIPPED) -> Recipe:
    """Read the recipe; raises BadConfig naming file, key and remedy."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        segmenter, masking = raw["segmenter"], raw["selfsupervise"]
        return Recipe(
            seed=raw["seed"],
            threads=raw["threads"],
            segmenter=SegmenterRecipe(
                segmenter["architecture"],
                segmenter["side"],
                _stage(segmenter),
                segmenter["unseen_place"],
            ),
            crop=CropRecipe(**raw["crop"]),
            selfsupervise=MaskingRecipe(
                masking["mask_share"], masking["patch"], masking["noise"], _stage(masking)
            ),
            pretrain=_stage(raw["pretrain"]),
            classifier=_stage(raw["classifier"]),
            members=tuple(MemberRecipe(**member) for member in raw["member"]),
            groups=tuple(
                GroupRecipe(group["name"], tuple(group["holds"])) for group in raw["group"]
            ),
            lungs=LungsRecipe(**raw["lungs"]),
            view=ViewRecipe(**raw["view"]),
            limits=Limits(**raw["limits"]),
            label=Label(**raw["label"]),
        )
    except OSError as error:
        raise BadConfig(str(path), "file", f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(str(path), "file", f"is not valid TOML: {error}") from error
    except (KeyError, TypeError) as error:
        raise BadConfig(str(path), str(error), "is missing or unknown; see recipe.toml") from error


def _stage(table: dict[str, Any]) -> Stage:
    return Stage(**{field.name: table[field.name] for field in fields(Stage)})
