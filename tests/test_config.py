"""node.toml: what is accepted, and how a mistake is explained."""

import tomllib
from pathlib import Path

import pytest

from covidnet_node.config import Config, load_config
from covidnet_node.errors import BadConfig

EXAMPLE = Path(__file__).parents[1] / "config" / "node.toml"


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    assert load_config(EXAMPLE) == Config()


def test_the_example_names_every_key() -> None:
    text = EXAMPLE.read_text()
    for section, model in Config.model_fields.items():
        if section == "destination":
            continue
        for key in type(model.default).model_fields:
            assert key in text, f"{section}.{key} is missing from config/node.toml"


def test_a_destination_as_the_readme_shows_it(tmp_path: Path) -> None:
    readme = (EXAMPLE.parents[1] / "README.md").read_text()
    start = readme.index("    [[destination]]")
    block = readme[start : readme.index("\n\nUnknown keys", start)].replace("    ", "")
    tomllib.loads(block)
    config = load_config(write(tmp_path, block))
    assert config.destination[0].host == "pacs.example.org"


def write(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[receive]\nprot = 104", "receive.prot", "not a known key"),
        ("[receive]\nport = 70000", "receive.port", "65535"),
        ('[node]\nae_title = "THIS TITLE IS TOO LONG"', "node.ae_title", "16"),
        (
            '[[admit.rules]]\naction = "admit"\nbody_part = "("',
            "admit.rules.0.body_part",
            "regular",
        ),
        ('[[destination]]\nname = "a"\nport = 1', "destination.0", "back_to_sender"),
        (
            '[[destination]]\nname = "a"\nae_title = "A"\nhost = "h"\nport = 1\n' * 2,
            "file",
            "two destinations are named 'a'",
        ),
        ("[node", "file", "not valid TOML"),
        ('[analyze]\ndevice = "gpu"', "analyze.device", "pattern"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as caught:
        load_config(path)
    assert caught.value.file == str(path)
    assert caught.value.key == key
    assert words in caught.value.remedy


def test_a_missing_file_says_where_to_start(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"config/node\.toml"):
        load_config(tmp_path / "absent.toml")
