"""node.toml: what is accepted, and how a mistake is explained."""

import tomllib
from pathlib import Path

import pytest

from covidnet_node.config import Config, Destination, load_config
from covidnet_node.errors import BadConfig

EXAMPLE = Path(__file__).parents[1] / "config" / "node.toml"


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    assert load_config(EXAMPLE) == Config()


def test_the_example_names_every_key() -> None:
    text = EXAMPLE.read_text()
    for section, model in Config.model_fields.items():
        keys = Destination if section == "destination" else type(model.default)
        for key in keys.model_fields:
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


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('url = "pacs.example.org"', "no web address"),
        ('url = "ftp://pacs.example.org"', "no web address"),
        ('url = "https://pacs.example.org:port"', "no web address"),
        ('url = "https://pacs.example.org/dicom web"', "no web address"),
        ('url = "https://node:s3cret@pacs.example.org"', "token_file"),
        ('url = "https://pacs.example.org/?key=s3cret"', "token_file"),
        ('url = "https://pacs.example.org"\nport = 443', "its own port"),
        ('url = "https://pacs.example.org"\nback_to_sender = true', "either"),
        ('url = "https://pacs.example.org"\nae_title = "A"\nhost = "h"', "either"),
        ('url = "https://pacs.example.org"\ncertificate_file = "c"', "key_file are both"),
        ('url = "http://pacs.example.org"\ntoken_file = "t"', "https"),
        ('url = "http://pacs.example.org"\nca_file = "c"', "https"),
        ('ae_title = "A"\nhost = "h"\nport = 1\ntoken_file = "t"', "belong to a url"),
        ('ae_title = "A"\nhost = "h"', "port is needed"),
    ],
)
def test_a_destination_is_reached_in_one_way(tmp_path: Path, keys: str, words: str) -> None:
    path = write(tmp_path, f'[[destination]]\nname = "web"\n{keys}')
    with pytest.raises(BadConfig) as caught:
        load_config(path)
    assert words in caught.value.remedy
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        'url = "https://pacs.example.org/dicom-web/"\ntoken_file = "/run/token"\nca_file = "/ca"',
        'url = "https://pacs:8443/x"\ncertificate_file = "/c"\nkey_file = "/k"',
        'url = "http://127.0.0.1:8042/dicom-web"\ntoken_file = "/run/token"',
        'url = "http://[::1]:8042"',
    ],
)
def test_web_destinations(tmp_path: Path, keys: str) -> None:
    config = load_config(write(tmp_path, f'[[destination]]\nname = "web"\n{keys}'))
    url = config.destination[0].url
    assert url is not None
    assert not url.endswith("/")


def test_a_missing_file_says_where_to_start(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"config/node\.toml"):
        load_config(tmp_path / "absent.toml")


TLS = '[receive.tls]\ncertificate_file = "c"\nkey_file = "k"\nca_file = "a"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[receive]\nplain = false", "no port would be open"),
        (f"[receive]\nplain = true\nport = 2762\n{TLS}", "must differ"),
        (TLS.replace('ca_file = "a"\n', ""), "is missing"),
        ("[[receive.peer]]", "would let all in"),
        ('[[receive.peer]]\naddresses = ["10.0.0.1/8"]', "host bits"),
        ('[[receive.peer]]\ncertificates = ["dns:xray"]', "[receive.tls]"),
        (f'{TLS}[[receive.peer]]\ncertificates = ["xray"]', "RFC 4514"),
    ],
)
def test_who_may_come_must_make_sense(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(write(tmp_path, text))
    assert words in caught.value.remedy


def test_the_plain_port_is_closed_where_there_is_tls(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "")).receive.open_plain
    assert not load_config(write(tmp_path, TLS)).receive.open_plain
    both = load_config(write(tmp_path, f"[receive]\nplain = true\n{TLS}"))
    assert both.receive.open_plain


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('url = "https://p"\n[destination.tls]\nca_file = "a"', "does not belong to a url"),
        ('ae_title = "A"\nhost = "h"\nport = 1\ntls = { key_file = "k" }', "both needed"),
        (
            'ae_title = "A"\nhost = "h"\nport = 1\ntls = { check_server_name = false }',
            "needs a ca_file",
        ),
    ],
)
def test_a_destination_over_tls_must_make_sense(tmp_path: Path, keys: str, words: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(write(tmp_path, f'[[destination]]\nname = "d"\n{keys}'))
    assert words in caught.value.remedy
