"""`covidnet-node check`: will it run here? Each line one thing, what was found, what to do."""

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.uid import UID

from covidnet_node.associate import target_of
from covidnet_node.audit.trail import outlets_of
from covidnet_node.certificates import (
    VERY_SOON_DAYS,
    all_files,
    expiries,
    server_context,
    web_context,
)
from covidnet_node.commit import SOP_CLASS, STUDY_ROOT_FIND, offered
from covidnet_node.config import Config, Destination
from covidnet_node.config_doors import ReceiveTls
from covidnet_node.config_oversight import Http
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal.examine import examine
from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.private_file import Exposed, check_private
from covidnet_node.service.doors import door_to
from covidnet_node.service.guard import check_token, in_the_clear
from covidnet_node.service.run import prepare_data
from covidnet_node.service.workers import devices, gpus

JOURNAL_S = 20.0
"""For looking the journal over."""
CUDA = {"cuda": "cuda:0"}
"""What a name without a number means."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer."""

    what: str
    ok: bool
    words: str


def check_node(config: Config) -> Iterator[Finding]:
    """Weights, device, disk, ports, every destination; a failed check never stops the next."""
    yield _weights(config)
    yield _device(config)
    yield _disk(config)
    yield _journal(config)
    receive = config.receive
    if receive.open_plain:
        yield _port("receive.port", receive.address, receive.port)
    if receive.tls is not None:
        yield _port("receive.tls.port", receive.address, receive.tls.port)
        yield _own_tls(receive.tls)
    yield from _certificates(config, datetime.now(UTC))
    yield _port("http.port", config.http.address, config.http.port)
    yield _http(config.http)
    yield _secrets(config)
    yield from _audit(config)
    if not config.destination:
        yield Finding("destinations", ok=False, words="none: results would go nowhere")
    for destination in config.destination:
        if destination.back_to_sender:
            yield Finding(destination.name, ok=True, words="back to each sender; not asked")
            continue
        yield _destination(destination, config.node.ae_title)
        if destination.commitment.ask != "off":
            yield _commitment(destination, config.node.ae_title)


def _destination(destination: Destination, node_ae: str) -> Finding:
    door = door_to(destination, node_ae)
    complaint = door.echo()
    words = complaint or f"{door.where} answered {door.question}"
    return Finding(destination.name, ok=complaint is None, words=words)


def _commitment(destination: Destination, node_ae: str) -> Finding:
    """Whether the destination offers what it is to be asked by."""
    ways = {"request": [SOP_CLASS], "find": [STUDY_ROOT_FIND]}
    wanted = ways.get(destination.commitment.ask, [SOP_CLASS, STUDY_ROOT_FIND])
    target = target_of(destination, sender_ae="", peer="")
    found = offered(target, wanted, destination.calling_ae or node_ae)
    if isinstance(found, str):
        return Finding(f"{destination.name} commitment", ok=False, words=found)
    words = "; ".join(
        f"{UID(each).name}: {'offered' if each in found else 'not offered'}" for each in wanted
    )
    return Finding(f"{destination.name} commitment", ok=bool(found), words=words)


def _journal(config: Config) -> Finding:
    try:
        found = examine(config.node.data / "journal.db", JOURNAL_S)
    except OSError as error:
        return Finding("journal", ok=False, words=f"cannot be reached ({error.strerror})")
    return Finding("journal", ok=found.sound, words=found.words)


def _own_tls(tls: ReceiveTls) -> Finding:
    try:
        server_context(tls)
    except BadConfig as error:
        return Finding("receive.tls", ok=False, words=str(error))
    words = f"TLS 1.2 or 1.3, a client's certificate is {tls.client_certificate}"
    return Finding("receive.tls", ok=True, words=words)


def _certificates(config: Config, now: datetime) -> Iterator[Finding]:
    for found in expiries(config, now):
        if isinstance(found, BadConfig):
            yield Finding(found.key, ok=False, words=found.remedy)
            continue
        good = found.not_before <= now < found.not_after
        span = f"from {found.not_before:%Y-%m-%d} to {found.not_after:%Y-%m-%d}"
        state = f"{found.days(now):.0f} days left" if good else "not now"
        words = f"{found.subject} is good {span}: {state}"
        yield Finding(found.which, ok=good and found.days(now) > VERY_SOON_DAYS, words=words)


def _http(settings: Http) -> Finding:
    """Who may look in."""
    try:
        check_token(settings)
        if settings.certificate_file is not None:
            web_context(settings)
    except BadConfig as error:
        return Finding("http", ok=False, words=str(error))
    if in_the_clear(settings) is not None:
        words = "the token crosses the network in the clear; give certificate_file and key_file"
        return Finding("http", ok=False, words=words)
    known = [
        words
        for given, words in (
            (settings.token_file, "a token"),
            (settings.ca_file, "a client certificate"),
        )
        if given is not None
    ]
    return Finding("http", ok=True, words=f"open to {' and '.join(known) or 'this machine'}")


def _secrets(config: Config) -> Finding:
    """Tokens and private keys: whether nobody else may read them."""
    keys = [path for files in all_files(config) for key, path in files.named() if "key" in key]
    tokens = [config.http.token_file, *(each.token_file for each in config.destination)]
    paths = [*keys, *(path for path in tokens if path is not None)]
    complaints = []
    for path in paths:
        try:
            check_private(path)
        except Exposed as error:
            complaints.append(str(error))
        except OSError as error:
            complaints.append(f"{path} cannot be read: {error.strerror}")
    words = "; ".join(complaints) or f"{len(paths)} files, private"
    return Finding("secrets", ok=not complaints, words=words)


def _audit(config: Config) -> Iterator[Finding]:
    if config.audit.file is None and config.audit.syslog is None:
        yield Finding("audit", ok=True, words="off: no audit trail is kept ([audit] in node.toml)")
        return
    try:
        for outlet in outlets_of(config):
            yield Finding("audit", ok=True, words=f"{outlet.name}: {outlet.probe()}")
    except (OSError, ValueError, BadConfig) as error:
        yield Finding("audit", ok=False, words=str(error))


def _weights(config: Config) -> Finding:
    try:
        weights = load_manifest(weights_folder(config.analyze.weights))
    except BadConfig as error:
        return Finding("weights", ok=False, words=str(error))
    algorithm = weights.algorithm
    words = f"{algorithm.name} {algorithm.version}, hashes match. {algorithm.notice}"
    words = f"{words} {weights.licence}"
    return Finding("weights", ok=True, words=words.strip())


def _device(config: Config) -> Finding:
    """Asked of the driver: loading torch to ask it takes longer than all else together."""
    wanted = devices(config)
    words = ", ".join(wanted)
    there = {"cpu", *gpus()}
    missing = sorted(name for name in set(wanted) if CUDA.get(name, name) not in there)
    if missing:
        words = f"{words}: the driver knows no {missing[0]} (analyze.device)"
    return Finding("device", ok=not missing, words=words)


def _disk(config: Config) -> Finding:
    try:
        folder = prepare_data(config.node.data)
    except (BadConfig, RetryLater) as error:
        return Finding("disk", ok=False, words=str(error))
    free = shutil.disk_usage(folder).free // 2**20
    low = config.receive.low_disk_mib
    words = f"{free} MiB free at {folder}; below {low} MiB images are refused"
    return Finding("disk", ok=free > low, words=words)


def _port(key: str, address: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            words = f"{address}:{port} cannot be bound ({error.strerror}); is the node running?"
            return Finding(key, ok=False, words=words)
    return Finding(key, ok=True, words=f"{address}:{port} is free")
