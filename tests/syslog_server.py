"""A syslog server over TLS (RFC 5425) that a test can stop, and that reads frames strictly."""

import re
import socket
import ssl
import threading
from types import TracebackType

HEADER = re.compile(
    rb"<(\d{1,3})>1 (\S{20,32}) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) - \xef\xbb\xbf"
)
"""RFC 5424 6: priority, version, time, host, program, process, message id, no structured data."""


class SyslogServer:
    """Gathers messages; `stop` closes the port and every connection, `start` opens it again."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._changed = threading.Condition()
        self.messages: list[bytes] = []
        """Whole syslog messages, in order of arrival."""
        self.refused = 0
        """Handshakes that failed."""
        self.port = 0
        self._door: socket.socket | None = None
        self._lines: list[socket.socket] = []

    def start(self) -> "SyslogServer":
        self._door = socket.create_server(("127.0.0.1", self.port))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._door,), daemon=True).start()
        return self

    def stop(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.shutdown(socket.SHUT_RDWR)
            door.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection, keep the port open."""
        with self._changed:
            lines, self._lines = self._lines, []
        for line in lines:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def wait_for(self, count: int, deadline_s: float = 60) -> list[bytes]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, deadline_s), (
                f"{len(self.messages)} of {count} messages"
            )
            return list(self.messages)

    def wait_for_refusals(self, count: int, deadline_s: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.refused >= count, deadline_s)

    def __enter__(self) -> "SyslogServer":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self, door: socket.socket) -> None:
        while True:
            try:
                plain, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as line:
                with self._changed:
                    self._lines.append(line)
                self._read(line)
        except OSError:
            with self._changed:
                self.refused += 1
                self._changed.notify_all()
        finally:
            plain.close()

    def _read(self, line: ssl.SSLSocket) -> None:
        with line.makefile("rb") as stream:
            while True:
                digits = b""
                while (sign := stream.read(1)) not in (b" ", b""):
                    assert sign.isdigit()
                    digits += sign
                if not digits:
                    return
                message = stream.read(int(digits))
                with self._changed:
                    if len(message) == int(digits):
                        self.messages.append(message)
                    self._changed.notify_all()
