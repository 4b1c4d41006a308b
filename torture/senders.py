"""Modalities that send each image until it is acknowledged, and misbehave when told to."""

import json
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.raw_client import ABORT, ASSOCIATE_AC, LAST, RawClient
from torture.images import Image

ACTS = ("abort_mid_object", "cut_mid_object", "garbage", "resend", "silent")
DEADLINE_S = 30.0
"""For each answer of the node."""
SILENT_S = 3.0
MOST_REMEMBERED = 2000


class Senders:
    """Some threads that share one stream of images; what they were promised goes to a file."""

    def __init__(self, port: int, stream: Iterator[Image], file: Path, rate: float) -> None:
        self._port = port
        self._stream = stream
        self._file = file.open("a", buffering=1)
        self._pause = 1 / rate
        self._lock = threading.Lock()
        self._acts: deque[str] = deque()
        self._recent: deque[Image] = deque(maxlen=MOST_REMEMBERED)
        self._stopping = threading.Event()
        self.free = threading.Event()
        """Cleared while more is under way than anybody would wait for."""
        self.free.set()
        self._threads: list[threading.Thread] = []
        self.acknowledged: set[str] = set()
        """Studies whose image was answered 0000; a study has one image."""
        self.refusals = 0
        """Answers other than 0000: the image was sent again."""

    def start(self, count: int) -> None:
        """Begin to stream."""
        for number in range(count):
            thread = threading.Thread(target=self._run, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def misbehave(self, act: str) -> None:
        """The next image meets this act first; it is sent properly afterwards."""
        with self._lock:
            self._acts.append(act)

    def stop(self) -> None:
        """Let each thread get its image acknowledged, then end."""
        self._stopping.set()
        self.free.set()
        for thread in self._threads:
            thread.join(600)
            if thread.is_alive():
                raise RuntimeError("an image was not acknowledged within ten minutes of peace")
        self._file.close()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        while not self._stopping.is_set():
            self.free.wait()
            with self._lock:
                batch = [next(self._stream) for _ in range(chance.choice((1, 1, 3, 6)))]
            self._deliver(batch)
            self._stopping.wait(self._pause * len(batch) * len(self._threads))

    def _deliver(self, batch: list[Image]) -> None:
        """Send until every image of the batch is acknowledged."""
        while batch:
            with self._lock:
                act = self._acts.popleft() if self._acts else ""
            with suppress(OSError, EOFError, AssertionError):
                batch = self._associate_and_send(batch, act)
            if batch:
                time.sleep(0.3)

    def _associate_and_send(self, batch: list[Image], act: str) -> list[Image]:
        """One association; returns what is still to be sent."""
        if act == "silent":
            threading.Thread(target=self._stay_silent, daemon=True).start()
        contexts = list(dict.fromkeys((image.sop_class, image.syntax) for image in batch))
        proposal = [(sop_class, (syntax,)) for sop_class, syntax in contexts]
        with RawClient(("127.0.0.1", self._port), DEADLINE_S) as client:
            if client.associate(*proposal, calling="TORTURE") != ASSOCIATE_AC:
                return batch
            for done, image in enumerate(batch):
                context = 2 * contexts.index((image.sop_class, image.syntax)) + 1
                if act in ("abort_mid_object", "cut_mid_object", "garbage"):
                    _break_off(client, image, context, act)
                    return batch[done:]
                status = client.store(image.sop_class, image.uid, image.data, context)
                if status != 0:
                    self.refusals += 1
                    return batch[done:]
                self._acknowledge(image)
            client.release()
        if act == "resend" and self._recent:
            self._resend(self._recent[0])
        return []

    def _resend(self, image: Image) -> None:
        """The same bytes again: no new work may come of it."""
        with RawClient(("127.0.0.1", self._port), DEADLINE_S) as client:
            client.associate((image.sop_class, (image.syntax,)), calling="TORTURE")
            client.store(image.sop_class, image.uid, image.data)
            client.release()

    def _stay_silent(self) -> None:
        """Ten clients that connect and say nothing."""
        with suppress(OSError):
            clients = [socket.create_connection(("127.0.0.1", self._port)) for _ in range(10)]
            time.sleep(SILENT_S)
            for client in clients:
                client.close()

    def _acknowledge(self, image: Image) -> None:
        line = {"at": time.time(), "uid": image.uid, "study": image.study}
        with self._lock:
            self.acknowledged.add(image.study)
            self._recent.append(image)
            self._file.write(json.dumps(line) + "\n")


def _break_off(client: RawClient, image: Image, context: int, act: str) -> None:
    """Leave an object half sent."""
    client.command(image.sop_class, image.uid, context)
    half = image.data[: len(image.data) // 2]
    for start in range(0, len(half), 60_000):
        client.fragment(half[start : start + 60_000], 0, context)
    if act == "abort_mid_object":
        client.send(bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
    elif act == "garbage":
        client.send(bytes(range(256)) * 8)
        client.fragment(b"\xff" * 100, LAST, 255)
