"""The log carries reasons and places, and never what an exception quotes."""

import json
import logging
import sys
import threading

import pytest
import structlog

from covidnet_node.case import Reason
from covidnet_node.config import Log
from covidnet_node.errors import Park
from covidnet_node.service.logs import configure_logs


@pytest.fixture(autouse=True)
def _restore_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    sys.excepthook, threading.excepthook = hooks


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    line: dict[str, object] = json.loads(capsys.readouterr().err.splitlines()[-1])
    return line


def test_every_line_of_a_case_carries_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Log())
    with structlog.contextvars.bound_contextvars(case_id="c1"):
        structlog.get_logger().info("reported", outcome="analyzed")
    line = last_line(capsys)
    assert line["case_id"] == "c1"
    assert line["event"] == "reported"
    assert line["level"] == "info"


def test_an_exception_is_told_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Log())
    try:
        raise ValueError("invalid value DOE^JANE")
    except ValueError:
        structlog.get_logger().exception("analysis failed")
        logging.getLogger("somebody.else").exception("theirs too")
    text = capsys.readouterr().err
    assert "DOE" not in text
    first = json.loads(text.splitlines()[0])
    assert first["error"] == "ValueError"
    assert any("test_logs.py" in frame for frame in first["frames"])


def test_a_verdict_keeps_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Log())
    try:
        raise Park(Reason.INVALID_RESULT, "evidence is empty")
    except Park:
        structlog.get_logger().exception("stopped")
    assert last_line(capsys)["error"] == "invalid_result: evidence is empty"


def test_libraries_that_quote_data_sets_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Log())
    logging.getLogger("pydicom").warning("Invalid value for VR PN: DOE^JANE")
    logging.getLogger("pynetdicom.events").error("DOE^JANE")
    assert capsys.readouterr().err == ""


def test_what_nobody_catches_is_told_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(Log())

    def die() -> None:
        try:
            raise ValueError("invalid value DOE^JANE")
        except ValueError as error:
            raise RuntimeError("cannot read DOE^JANE") from error

    thread = threading.Thread(target=die, name="deliver")
    thread.start()
    thread.join()
    try:
        die()
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    text = capsys.readouterr().err
    assert "DOE" not in text
    first, second = (json.loads(line) for line in text.splitlines())
    assert (first["event"], first["thread"], first["error"]) == (
        "thread_died",
        "deliver",
        "RuntimeError",
    )
    assert (second["event"], second["error"], second["alert"]) == ("died", "RuntimeError", True)
