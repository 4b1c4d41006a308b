"""The command line: documented, exit codes, and what a command may load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from covidnet_node.cli import app
from covidnet_node.journal.journal import Journal

ROOT = Path(__file__).parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "covidnet_node", *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_every_command_is_documented_and_explained() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, f"{name} has no help"
        words = [f"covidnet-node {name}", f"covidnet_node {name}", f"make {name}", f"`{name}`"]
        assert any(each in readme for each in words), f"README does not mention {name}"
        for sub, inner in getattr(command, "commands", {}).items():
            assert inner.help, f"{name} {sub} has no help"


def test_help_of_every_command_can_be_read() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0, name


def test_serve_refuses_a_wrong_configuration_with_78_and_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text("[receive]\nprot = 104\n")
    result = run("serve", "--config", str(config))
    assert result.returncode == 78
    words = " ".join(result.stderr.split())
    assert str(config) in words.replace(" ", "") or str(config) in words
    assert "receive.prot" in words
    assert "Traceback" not in result.stderr


def test_serve_refuses_weights_whose_hash_is_wrong(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    for file in (ROOT / "weights").iterdir():
        if file.suffix in (".toml", ".safetensors"):
            (weights / file.name).write_bytes(file.read_bytes())
    damaged = next(weights.glob("*.safetensors"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\ndata = "{tmp_path}/data"\n[analyze]\nweights = "{weights}"\n')
    result = run("serve", "--config", str(config))
    assert result.returncode == 78
    assert damaged.name in result.stderr


def test_status_without_a_journal_says_so(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\ndata = "{tmp_path}/nowhere"\n')
    result = run("status", "--config", str(config))
    assert result.returncode == 78
    assert "no journal" in " ".join(result.stderr.split())


def test_wrong_use_ends_with_64() -> None:
    result = run("serve", "--bogus")
    assert result.returncode == 64
    assert "--bogus" in result.stderr


def test_a_journal_out_of_reach_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    # The system refuses to look at so long a name, as it refuses a stranger at a 0700 folder.
    config.write_text(f'[node]\ndata = "{tmp_path}/{"a" * 300}"\n')
    result = run("status", "--config", str(config))
    assert result.returncode == 78
    assert "node.data" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_case_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    Journal.open(tmp_path / "journal.db").close()
    config = tmp_path / "node.toml"
    config.write_text(f'[node]\ndata = "{tmp_path}"\n')
    result = run("queue", "show", "20260101T000000-0123456789ab", "--config", str(config))
    assert result.returncode == 1
    assert "there is no case" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(
        f"""
[node]
data = "{tmp_path}/data"
[receive]
address = "127.0.0.1"
port = 0
low_disk_mib = 1
[http]
port = 0
[analyze]
device = "cuda:63"
[[destination]]
name = "dead"
ae_title = "DEAD"
host = "127.0.0.1"
port = 1
connect_timeout_s = 1
"""
    )
    result = run("check", "--config", str(config), "--json")
    found = {line["what"]: line for line in json.loads(result.stdout)}
    assert result.returncode == 1
    wrong = {what for what, line in found.items() if not line["ok"]}
    assert wrong == {"device", "dead"}, found


@pytest.mark.parametrize("module", ["covidnet_node.cli", "covidnet_node.service.run"])
def test_only_workers_import_torch(module: str) -> None:
    script = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_node_never_loads_training() -> None:
    script = (
        "import sys\n"
        "import covidnet_node.service.run, covidnet_node.service.analyzing\n"
        "assert not any(name.startswith('covidnet_node.training') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
