"""All families together."""

from collections.abc import Callable

from tests.bad_input import disguises, frames, identifiers, pixels, structure, texts, values
from tests.bad_input.build import Cases

FAMILIES: dict[str, Callable[[int], Cases]] = {
    "pixels": pixels.cases,
    "frames": frames.cases,
    "structure": structure.cases,
    "values": values.cases,
    "texts": texts.cases,
    "identifiers": identifiers.cases,
    "disguises": disguises.cases,
}
"""Data sets; what is wrong below them, at the protocol, is in `wire`."""


def everything(seed: int) -> Cases:
    """Every case of every family, the bombs aside."""
    for family in FAMILIES.values():
        yield from family(seed)
