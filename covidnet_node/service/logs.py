"""The operational log: JSON lines on standard error, a case id on every line about a case.

Never patient data. An exception's own words may quote the data set that caused it (a name, an
id), so for everything but our verdicts only its type and the places in the code are written.
"""

import logging
import logging.config
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog
from structlog.types import EventDict, WrappedLogger

from covidnet_node.config import Log
from covidnet_node.errors import BadConfig, Verdict

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

LIBRARIES_THAT_QUOTE_DATA = ("pydicom", "pynetdicom", "highdicom")
"""Their warnings quote attribute values; errors of theirs reach our log as exceptions."""


def configure_logs(log: Log) -> None:
    """Send every line, ours and the libraries', through one formatter to standard error."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _frames_only,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, log.level)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log.level)
    logging.captureWarnings(capture=True)
    for name in ("apscheduler", "uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in LIBRARIES_THAT_QUOTE_DATA:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    # Python itself would print what an exception nobody caught says, and what it came from.
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what ends the process, in place of Python's traceback."""
    structlog.get_logger().critical("died", exc_info=(kind, error, trace), alert=True)


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    """Log what ends a thread, in place of Python's traceback."""
    if told.exc_value is None:
        return
    found = (told.exc_type, told.exc_value, told.exc_traceback)
    name = told.thread.name if told.thread else None
    structlog.get_logger().critical("thread_died", thread=name, exc_info=found, alert=True)


def _frames_only(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace exc_info by the exception's type, our verdict's words, and the code's frames."""
    found: Any = event.pop("exc_info", None)
    if not found:
        return event
    info: ExcInfo | tuple[None, None, None]
    if isinstance(found, BaseException):
        info = (type(found), found, found.__traceback__)
    elif isinstance(found, tuple):
        info = found
    else:
        info = sys.exc_info()
    kind, error, trace = info
    if kind is None or error is None:
        return event
    event["error"] = str(error) if isinstance(error, Verdict | BadConfig) else kind.__name__
    event["frames"] = [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(trace)
    ]
    return event
