"""Health, readiness, metrics and the status page; on loopback, or for those `guard` knows.

Every answer is read from the journal. Nothing here changes anything, and nothing names a patient.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from jinja2 import Environment, FileSystemLoader, select_autoescape
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from covidnet_node.audit.events import Record, unrecorded
from covidnet_node.case import Case, State
from covidnet_node.certificates import web_context
from covidnet_node.config import Config
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.intended_use import NOTICE, PRODUCT
from covidnet_node.journal.journal import Journal
from covidnet_node.service.guard import BoundedConnection, Guard, check_token, in_the_clear
from covidnet_node.service.metrics import CertificateCollector, JournalCollector

log = structlog.get_logger()

STARTING_S = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """What the running node says of itself, beyond its journal."""

    listening: Callable[[], bool]
    ready: Callable[[], bool]


def build_app(
    config: Config, journal: Journal, health: Health, *more_metrics: Collector
) -> Starlette:
    """The five doors: /healthz, /readyz, /metrics, /api/cases, /."""
    registry = CollectorRegistry()
    registry.register(JournalCollector(journal, health.listening, health.ready))
    registry.register(CertificateCollector(config))
    for collector in more_metrics:
        registry.register(collector)
    templates = FileSystemLoader(Path(__file__).with_name("templates"))
    pages = Environment(loader=templates, autoescape=select_autoescape())

    def healthz(_request: Request) -> Response:
        alive = health.listening()
        return PlainTextResponse("ok\n" if alive else "not listening\n", 200 if alive else 503)

    def readyz(_request: Request) -> Response:
        ready = health.listening() and health.ready()
        return PlainTextResponse("ready\n" if ready else "loading\n", 200 if ready else 503)

    def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    def cases(request: Request) -> Response:
        wanted = request.query_params.get("state")
        if wanted is not None and wanted not in set(State):
            return JSONResponse({"error": f"no state {wanted!r}"}, 400)
        limit = request.query_params.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= 1000:
            return JSONResponse({"error": "limit is a number from 1 to 1000"}, 400)
        found = journal.cases(State(wanted) if wanted else None, int(limit))
        return JSONResponse([summary(case) for case in found])

    def page(_request: Request) -> Response:
        body = pages.get_template("status.html").render(
            product=PRODUCT,
            notice=NOTICE,
            node=config.node,
            listening=health.listening(),
            ready=health.ready(),
            condition=condition(journal, datetime.now(UTC)),
            cases=[summary(case) for case in journal.cases(None, 50)],
            rejections=journal.rejections(),
        )
        return HTMLResponse(body)

    def unavailable(_request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"journal not available: {error}\n", 503)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/api/cases", cases),
            Route("/", page),
        ],
        exception_handlers={RetryLater: unavailable},
    )


def summary(case: Case) -> dict[str, Any]:
    """A case as the API, `status` and `queue` show it: no patient data, no instance UID."""
    return {
        "id": case.id,
        "state": case.state.value,
        "outcome": case.outcome.value if case.outcome else None,
        "reason": case.reason.value if case.reason else None,
        "detail": case.detail,
        "received_at": case.received.received_at.isoformat(timespec="seconds"),
        "updated_at": case.updated_at.isoformat(timespec="seconds"),
        "calling_ae": case.received.calling_ae,
        "attempts": case.attempts,
        "crashes": case.crashes,
    }


class HttpDoor:
    """Serves the app from a thread of its own, behind a guard; raises BadConfig."""

    def __init__(self, config: Config, app: Starlette, record: Record = unrecorded) -> None:
        check_token(config.http)
        settings = uvicorn.Config(
            Guard(app, config.http, record),
            host=config.http.address,
            port=config.http.port,
            http=BoundedConnection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
        )
        if config.http.certificate_file is not None:
            settings.load()
            settings.ssl = web_context(config.http)
        self._server = uvicorn.Server(settings)
        self._config = config
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._ended = threading.Event()

    def start(self) -> None:
        """Return once the port answers; raises BadConfig when it cannot be bound."""
        self._thread.start()
        waited = 0.0
        while not self._server.started and not self._ended.wait(0.02):
            waited += 0.02
            if waited > STARTING_S:
                break
        if in_the_clear(self._config.http) is not None:
            log.warning("token_crosses_the_network_in_the_clear", alert=True)
        if not self._server.started:
            where = f"{self._config.http.address}:{self._config.http.port}"
            raise BadConfig("node.toml", "http.port", f"{where} cannot be bound; is it in use?")

    @property
    def open(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    @property
    def port(self) -> int:
        """The port really bound."""
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        """Close the port and wait for the thread."""
        self._server.should_exit = True
        self._thread.join(5)

    def _serve(self) -> None:
        try:
            self._server.run()
        except SystemExit:
            # uvicorn's way to say that the port is taken; `start` tells the person.
            log.error("http_door_did_not_open")  # noqa: TRY400 - SystemExit has no story
        finally:
            self._ended.set()


def condition(journal: Journal, now: datetime) -> dict[str, list[dict[str, Any]]]:
    """States, what each destination is owed, and the last errors, in plain values."""
    return {
        "states": [
            {
                "state": row.state.value,
                "count": row.count,
                "oldest_seconds": round(row.oldest.total_seconds()) if row.oldest else None,
            }
            for row in journal.counts(now)
        ],
        "owed": [
            {
                "destination": row.destination,
                "results": row.pending,
                "uncommitted": row.uncommitted,
                "oldest_seconds": round((now - row.owed_since).total_seconds()),
            }
            for row in journal.backlog()
        ],
        "last errors": [
            {
                "at": row.at.isoformat(timespec="seconds"),
                "case": row.case_id,
                "destination": row.destination,
                "error": row.error,
            }
            for row in journal.last_errors()
        ],
    }


def story(journal: Journal, case_id: str) -> dict[str, Any]:
    """One case with its history, results and deliveries, in plain values; no patient data."""
    return {
        "case": summary(journal.case(case_id)),
        "history": [
            {
                "at": line.at.isoformat(timespec="milliseconds"),
                "to": line.to_state.value,
                "cause": line.cause.value,
                "detail": line.detail,
            }
            for line in journal.history(case_id)
        ],
        "results": [
            {"kind": result.kind.value, "sop_instance_uid": result.sop_instance_uid}
            for result in journal.results(case_id)
        ],
        "deliveries": [
            {
                "destination": delivery.destination,
                "kind": delivery.kind.value,
                "state": delivery.state.value,
                "attempts": delivery.attempts,
                "last_error": delivery.last_error,
            }
            for delivery in journal.deliveries(case_id)
        ],
    }
