"""A short slice of `make torture`, and the judge that counts: it must be able to find a loss."""

import json
from pathlib import Path

import pytest

from torture.account import Answered, balance, echoes
from torture.node import Life
from torture.run import Plan, torture
from torture.table import BEGIN, END, write_table

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
HEATMAP = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_a_slice_of_the_torture_loses_nothing(tmp_path: Path) -> None:
    plan = Plan(
        seed=365,
        minutes=5,
        images=10**9,
        faults=12,
        worker="stand-in",
        rate=3.0,
        soak=0.0,
        folder=tmp_path / "run",
        senders=2,
        most_in_flight=40,
        pause=0.5,
    )
    result = torture(plan)
    assert sum(result["faults"].values()) == 12, result
    assert result["acknowledged"] == result["delivered"] > 0, result
    assert (result["lost"], result["duplicated"], result["changed"]) == (0, 0, 0), result
    assert result["owed"] >= result["acknowledged"]
    assert (result["missing"], result["without_heatmap"]) == (0, 0), result
    assert set(result["exits_after_sigterm"]) == {0}, result
    assert result["echo"]["asked"] > 0
    assert result["echo"]["unanswered"] == 0, result
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table([result], page)
    assert "| **lost** | 0 | 0 | 0 |" in page.read_text()
    assert "old" not in page.read_text()


def arrival(study: str, uid: str, **changes: object) -> str:
    line = {"study": study, "uid": uid, "class": REPORT, "digest": "a", "stored": True}
    return json.dumps(line | {"same_uid": True, "met": "0000"} | changes) + "\n"


def test_the_judge_finds_what_is_lost_twice_there_or_changed(tmp_path: Path) -> None:
    file = tmp_path / "arrivals.jsonl"
    file.write_text(
        arrival("well", "1")
        + arrival("well", "1")
        + arrival("well", "2", **{"class": HEATMAP})
        + arrival("twice", "3")
        + arrival("twice", "4", stored=False, met="hang")
        + arrival("in another class", "9", stored=False, met="a700")
        + arrival("in another class", "10")
        + arrival("changed", "5")
        + arrival("changed", "5", digest="b")
        + arrival("mislabeled", "6", same_uid=False)
        + arrival("refused", "7", stored=False)
        + arrival("only its heatmap", "8", **{"class": HEATMAP})
    )
    promised = {
        "in another class",
        "well",
        "twice",
        "changed",
        "mislabeled",
        "refused",
        "only its heatmap",
        "nothing",
    }
    found = balance(promised, {"1", "2", "7", "11"}, file)
    assert found.lost == ("nothing", "only its heatmap", "refused")
    assert found.missing == ("11", "7")
    assert found.duplicated == ("twice",)
    assert found.changed == ("5", "6")
    assert (found.delivered, found.resent) == (5, 2)


def test_the_judge_reads_on_and_leaves_half_a_line_for_later(tmp_path: Path) -> None:
    file = tmp_path / "arrivals.jsonl"
    answered = Answered(file)
    assert answered() == set()
    half = arrival("second", "2")
    file.write_text(arrival("first", "1") + half[:10])
    assert answered() == {"first"}
    with file.open("a") as more:
        more.write(half[10:])
    assert answered() == {"first", "second"}


def test_only_echoes_of_a_node_that_should_be_up_count(tmp_path: Path) -> None:
    file = tmp_path / "echo.txt"
    file.write_text("1 0.1 0\n11 0.2 0.5\n15 nan 0\n19.9 0.2 0\n45 nan 0\n")
    lives = [Life(up=10, down=20), Life(up=40, down=90)]
    found = echoes(file, lives)
    assert found["asked"] == 2
    assert found["unanswered"] == 1
    assert found["longest_s"] == 0.2
    assert found["machine_longest_s"] == 0.5
