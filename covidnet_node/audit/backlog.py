"""Messages that wait for their way out, on disk: a kill loses none of them.

Records lie in segments, numbered files of one record a line. Those who record append to the
youngest; the one who sends takes the oldest, and deletes it once all of it has arrived. What was
taken and not deleted before a kill is sent again.
"""

import errno
import os
import threading
from dataclasses import dataclass
from pathlib import Path

LARGEST_SEGMENT = 1024 * 1024
_NAME = "{:012d}.messages"


@dataclass(frozen=True, slots=True)
class Segment:
    """A file that nobody appends to any more."""

    path: Path
    records: tuple[bytes, ...]


class Backlog:
    """A folder of segments, mode 0700, for many writers and one reader."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Take up what an earlier life left; raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._most = most_bytes
        self._lock = threading.Lock()
        left = sorted(folder.glob("[0-9]*.messages"))
        self._waiting = {path: path.stat().st_size for path in left}
        """Oldest first, with their sizes."""
        self._number = int(left[-1].stem) if left else 0
        self._file: int | None = None
        """Of the youngest, while it is written to."""

    @property
    def size(self) -> int:
        """Bytes that wait."""
        with self._lock:
            return self._total()

    def append(self, record: bytes, share: float = 1.0) -> bool:
        """Write one record, without line ends within; False if there is no room for it.

        `share` is the part of the backlog that it may use.
        """
        line = record + b"\n"
        with self._lock:
            if self._total() + len(line) > self._most * share:
                return False
            try:
                self._write(line)
            except OSError:
                return False
            return True

    def take(self) -> Segment | None:
        """The oldest segment, which is then closed to writers; None if nothing waits."""
        with self._lock:
            if not self._waiting:
                return None
            path = next(iter(self._waiting))
            if len(self._waiting) == 1:
                self._close()
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # somebody tidied up
            data = b""
        # The end of a line that a power cut tore off is no record.
        return Segment(path, tuple(data.split(b"\n")[:-1]))

    def drop(self, segment: Segment) -> None:
        """Forget a segment that has arrived; raises OSError."""
        segment.path.unlink(missing_ok=True)
        with self._lock:
            self._waiting.pop(segment.path, None)

    def sync(self) -> None:
        """Put all that waits on the disk, so that it outlives a power cut; raises OSError."""
        with self._lock:
            waiting = [*self._waiting, self._folder]
        for path in waiting:
            if not path.exists():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the file; what waits stays."""
        with self._lock:
            self._close()

    def _total(self) -> int:
        return sum(self._waiting.values())

    def _write(self, line: bytes) -> None:
        if self._file is None or self._waiting[next(reversed(self._waiting))] >= LARGEST_SEGMENT:
            self._close()
            self._file = self._begin()
        youngest = next(reversed(self._waiting))
        before = self._waiting[youngest]
        written = os.write(self._file, line)
        if written < len(line):
            os.ftruncate(self._file, before)
            raise OSError(errno.ENOSPC, "no room")
        self._waiting[youngest] = before + written

    def _begin(self) -> int:
        """A new segment; raises OSError."""
        self._number += 1
        path = self._folder / _NAME.format(self._number)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._waiting[path] = 0
        return file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
