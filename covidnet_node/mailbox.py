"""What a peer says on an association that we opened: bounded, and its requests apart from answers.

pynetdicom keeps all that comes, however much it is, and gives each report a thread of its own.
"""

import queue
import threading
from collections.abc import Callable
from time import monotonic
from typing import cast

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider, _QueueItem
from pynetdicom.dimse_primitives import (
    C_CANCEL,
    N_EVENT_REPORT,
    DimsePrimitiveType,
    DimseServiceType,
)
from pynetdicom.pdu_primitives import P_DATA

log = structlog.get_logger()

LARGEST_MESSAGE = 1024 * 1024
"""Bytes of one message: a report on thousands of instances fits in."""
MOST_WAITING = 256
"""Messages that nobody has read yet; a query that regards its keys has one match."""
_OPEN_STATES = frozenset({"Sta6", "Sta8"})
"""PS3.8 9.2: data may be sent; we have not asked for the release."""


class Mailbox(DIMSEServiceProvider):
    """Takes messages up to a limit, and keeps the peer's requests apart from its answers.

    A report may come before the answer to its request; pynetdicom would take it for that answer
    and abort.
    """

    def __init__(self, assoc: Association, hang_up: Callable[[], None]) -> None:
        super().__init__(assoc)
        self.overflowed = False
        """The peer said more than anybody needs; the connection was cut."""
        self.answered = threading.Event()
        """A report of the peer's has had its answer."""
        self._hang_up = hang_up
        self._bytes = 0
        """Of the message that is arriving."""
        self._strays = 0
        """Messages since our last request that were no answer to it."""
        self._asked: tuple[type, int | None] | None = None
        """Kind and message ID of our last request."""
        self._sending = threading.Lock()
        self._closed = False
        self._requests: queue.Queue[_QueueItem] = queue.Queue()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the next fragments of a message; hang up on a peer without end."""
        if self.overflowed:
            return
        self._bytes += sum(len(data) for _, data in primitive.presentation_data_value_list)
        waiting = self.msg_queue.qsize() + self._requests.qsize()
        if self._bytes > LARGEST_MESSAGE or waiting + self._strays > MOST_WAITING:
            self.overflowed, self.message = True, None
            messages = waiting + self._strays
            log.warning("peer_without_end", bytes=self._bytes, messages=messages)
            self._hang_up()
            return
        super().receive_primitive(primitive)
        # Without a message in progress the next fragment begins one.
        if cast(object, self.message) is None:
            self._bytes = 0

    def get_msg(self, block: bool = False) -> _QueueItem:  # noqa: FBT001, FBT002 - pynetdicom's
        """The next request for the association's own thread; the next answer for a waiting one."""
        if not block:
            try:
                return self._requests.get_nowait()
            except queue.Empty:
                return super().get_msg(block=False)
        patience = self.dimse_timeout
        until = None if patience is None else monotonic() + patience
        while True:
            left = None if until is None else max(0.0, until - monotonic())
            try:
                item = self.msg_queue.get(timeout=left)
            except queue.Empty:
                return None, None
            if _is_request(item[1]):
                self._requests.put(item)
            elif item[1] is None or self._fits(item[1]):  # None: the association has ended
                return item
            else:
                self._strays += 1
                tell = log.warning if self._strays == 1 else log.debug
                tell("stray_answer", kind=type(item[1]).__name__)

    def _fits(self, answer: object) -> bool:
        """Whether it answers what was asked last; pynetdicom takes any success for its own.

        A peer that answers twice would have the second answer taken for that to the next object.
        """
        return (type(answer), getattr(answer, "MessageIDBeingRespondedTo", None)) == self._asked

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send; then say if it was the answer to a report, so that the association may end.

        Not after the end: pynetdicom's state machine would fail.
        """
        asks = False
        if not isinstance(primitive, C_CANCEL) and primitive.MessageIDBeingRespondedTo is None:
            asks = True
            self._asked, self._strays = (type(primitive), primitive.MessageID), 0
        with self._sending:
            open_ = not self._closed and self.dul.state_machine.current_state in _OPEN_STATES
            if open_:
                super().send_msg(primitive, context_id)
        if asks and not open_:
            # Whoever waits for the answer need not.
            self.msg_queue.put((None, None))
        if isinstance(primitive, N_EVENT_REPORT) and not asks:
            self.answered.set()

    def close(self) -> None:
        """The association is about to be released."""
        with self._sending:
            self._closed = True


def serve_in_turn(assoc: Association) -> None:
    """Let the association's own thread answer reports, one after the other.

    pynetdicom gives each a thread of its own, any number of them, and they reset the flag by
    which `release` knows that the association's thread has paused: it would wait for ever.
    """
    serve = assoc._serve_request

    def in_turn(msg: DimseServiceType, context_id: int) -> None:
        if threading.current_thread() is assoc:
            serve(msg, context_id)
        else:
            assoc.dimse.msg_queue.put((context_id, msg))

    assoc._serve_request = in_turn  # type: ignore[method-assign]


def _is_request(message: object) -> bool:
    return isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is None
