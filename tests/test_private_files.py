"""Secrets come from files that nobody else can read, and what the node writes is its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from covidnet_node.config import Config, Destination, load_config
from covidnet_node.errors import BadConfig
from covidnet_node.journal.journal import Journal
from covidnet_node.private_file import Exposed, check_private, read_token
from covidnet_node.service.run import prepare_data
from tests.node import to_toml


def secret(folder: Path, mode: int) -> Path:
    path = folder / "secret"
    path.write_text("abc")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    assert read_token(secret(tmp_path, mode)) == "abc"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o666, 0o660, 0o601, 0o644])
def test_a_file_that_others_may_read_or_change_is_not(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Exposed, match="chmod it 0600"):
        read_token(secret(tmp_path, mode))


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(secret(tmp_path, 0o644))
    with pytest.raises(Exposed):
        check_private(link)


def test_a_path_out_of_the_credentials_folder_is_no_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    outside = secret(tmp_path, 0o644)
    with pytest.raises(Exposed):
        check_private(folder / ".." / outside.name)
    (folder / "link").symlink_to(outside)
    with pytest.raises(Exposed):
        check_private(folder / "link")


@pytest.mark.parametrize(
    ("table", "key"),
    [("http", "token"), ("http", "password"), ("audit", "key"), ("node", "secret")],
)
def test_the_configuration_itself_holds_no_secret(tmp_path: Path, table: str, key: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f'[{table}]\n{key} = "hunter2hunter2hunter2"\n')
    with pytest.raises(BadConfig, match="not a known key") as told:
        load_config(path)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("key", ["token", "password", "user"])
def test_nor_does_a_destination(key: str) -> None:
    with pytest.raises(ValidationError):
        Destination.model_validate({"name": "w", "url": "https://x/", key: "hunter2"})


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    target = {"name": "web", "url": "https://user:hunter2@pacs.example.org/dicom-web"}
    path.write_text(to_toml({}, [target]))
    with pytest.raises(BadConfig, match="token_file") as told:
        load_config(path)
    assert "hunter2" not in str(told.value)


def test_check_tells_of_every_secret_that_others_may_read(tmp_path: Path) -> None:
    token = secret(tmp_path, 0o644)
    config = tmp_path / "node.toml"
    tables = {"node": {"data": str(tmp_path / "data")}, "http": {"token_file": str(token)}}
    config.write_text(to_toml(tables, []))

    def findings() -> str:
        told = subprocess.run(
            [sys.executable, "-m", "covidnet_node", "check", "--json", "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return told.stdout

    assert f"{token} may be read or changed by others (mode 0644)" in findings()
    assert "off: no audit trail is kept" in findings()


def test_data_of_another_time_become_private_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    before = os.umask(0)
    try:
        Journal.open(prepare_data(data) / "journal.db").close()
        data.chmod(0o755)
        for path in data.iterdir():
            path.chmod(0o644)  # as a copy from a backup may be
        with Journal.open(prepare_data(data) / "journal.db") as journal:
            journal.counters()
            modes = {path.stat().st_mode & 0o777 for path in data.iterdir()}
    finally:
        os.umask(before)
    assert data.stat().st_mode & 0o777 == 0o700
    assert modes == {0o600}


def test_no_secret_is_a_default() -> None:
    config = Config()
    assert config.http.token_file is None
    assert config.audit.file is None
    assert config.audit.syslog is None
