"""What the fuzzer has found, once more: each was mended, and stays so."""

from pathlib import Path

import pytest

from fuzz.targets import TARGETS, Wire, seeds
from tests.bad_input.talk import echo, watched

FOUND = Path(__file__).parent / "bad_input" / "found"


def found(wire: bool) -> list[Path]:
    paths = sorted(FOUND.iterdir()) if FOUND.is_dir() else []
    return [path for path in paths if path.name.startswith("wire-") == wire]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", found(wire=False), ids=lambda path: path.name)
def test_what_was_found_in_the_rooms_has_a_verdict(path: Path) -> None:
    TARGETS[path.name.partition("-")[0]](path.read_bytes())


@pytest.mark.filterwarnings("ignore")
def test_what_was_found_on_the_wire_is_answered(make_site) -> None:
    site = make_site(network_timeout_s=5)
    with watched() as watch:
        talk = Wire(site.address, watch)
        for path in found(wire=True):
            talk(path.read_bytes())
        echo(site.address)
    assert not watch.lines


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
def test_the_fuzzers_targets_take_what_they_start_from(target: str) -> None:
    given = list(seeds(target, 1))
    assert len(given) > 100
    for data in given[:: len(given) // 12]:
        TARGETS[target](data)
