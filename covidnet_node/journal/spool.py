"""The files: what came in, what goes out. Written, fsynced, renamed; never half there.

    <root>/incoming/                                what is being received right now
    <root>/cases/<yyyymmdd>/<case id>/source.dcm    as it was received
    <root>/cases/<yyyymmdd>/<case id>/<kind>.dcm    a result; <kind>-<form>.dcm in another form

No name on disk ever comes from outside: folders are named by our case ids, files by our kinds.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from covidnet_node.case import Reason, Received, ResultKind
from covidnet_node.errors import RetryLater
from covidnet_node.journal.case_id import is_case_id

_META_LENGTH = 140
"""Where a received file says how long the rest of its file meta is (PS3.10 7.1)."""
_TEMPORARY = ".part"


class Spool:
    """The spool folder; safe for many threads and processes at once."""

    def __init__(self, root: Path) -> None:
        """Make the folders, mode 0700, where they are missing; raises RetryLater."""
        self.root = root.absolute()
        self._incoming = self.root / "incoming"
        self._cases = self.root / "cases"
        self._durable_days: set[Path] = set()
        with _storing():
            for folder in (self.root, self._incoming, self._cases):
                _make_private(folder)
            # A fsync of a file makes its own folder's entry durable, not the folders above.
            for folder in (self.root, self.root.parent):
                _fsync(folder)

    def incoming(self) -> tuple[Path, BinaryIO]:
        """Open a new file, mode 0600, for bytes that are being received; raises RetryLater."""
        path = self._incoming / f"{secrets.token_hex(16)}{_TEMPORARY}"
        with _storing():
            return path, _create(path)

    def keep(self, temporary: Path, case_id: str) -> Path:
        """Make a received file durable as the case's source and return its new place.

        After the return neither a crash nor a power cut can lose it. Raises RetryLater; what
        then lies there, under either name, is not acknowledged and the sweep's to take.
        """
        source = self.source(case_id)
        day = source.parent.parent
        with _storing():
            _fsync(temporary)
            _make_private(source.parent)
            temporary.rename(source)
            _fsync(source.parent)
            _fsync(day)
            # Whoever finds the day's folder there cannot know that its name is on the disk yet.
            if day not in self._durable_days:
                _fsync(self._cases)
                self._durable_days.add(day)
        return source

    def source(self, case_id: str) -> Path:
        """Where the received file of a case lies; raises ValueError for what is no case id."""
        return self._folder(case_id) / "source.dcm"

    def is_as_received(self, case_id: str, received: Received) -> bool:
        """Whether the source still holds, byte for byte, the data set that was acknowledged.

        Raises RetryLater where the system will not read it.
        """
        try:
            with self.source(case_id).open("rb") as file:
                file.seek(_META_LENGTH)
                length = file.read(4)
                file.seek(int.from_bytes(length, "little"), os.SEEK_CUR)
                return hashlib.file_digest(file, "sha256").hexdigest() == received.sha256
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RetryLater(Reason.CANNOT_READ, error.strerror or "") from error

    def write_result(self, case_id: str, kind: ResultKind, data: bytes, form: str = "") -> Path:
        """Write a result durably, in place of an earlier one of its name; raises RetryLater.

        `form`, letters and digits, tells apart objects of one kind that destinations want.
        """
        if form and not (form.isascii() and form.isalnum()):
            raise ValueError("a form is named by letters and digits")
        name = f"{kind.value}-{form}" if form else kind.value
        final = self._folder(case_id) / f"{name}.dcm"
        temporary = final.with_name(f"{name}-{secrets.token_hex(8)}{_TEMPORARY}")
        with _storing():
            try:
                with _create(temporary) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.rename(final)
            except OSError:
                with suppress(OSError):
                    temporary.unlink()
                raise
            _fsync(final.parent)
        return final

    def drop_pixels(self, case_id: str) -> None:
        """Delete the received file of a case, keep its results."""
        with _storing():
            self.source(case_id).unlink(missing_ok=True)

    def drop(self, case_id: str) -> None:
        """Delete all files of a case; nothing happens where there are none."""
        with _storing():
            _remove_folder(self._folder(case_id))

    def free_bytes(self) -> int:
        """Space left to us on the spool's file system."""
        with _storing():
            return shutil.disk_usage(self.root).free

    def sweep(self, known: Callable[[str], bool], older_than: timedelta, now: datetime) -> int:
        """Delete what no row of the journal knows and return how many files and cases it was.

        Nothing of it was ever acknowledged: a row is committed after its file is in place and
        before C-STORE answers. What is younger than `older_than` may still be on its way.
        """
        before = (now - older_than).timestamp()
        swept = sum(_remove_file(path, before) for path in _children(self._incoming))
        for day in _children(self._cases):
            for folder in _children(day):
                if is_case_id(folder.name) and known(folder.name):
                    parts = [path for path in _children(folder) if path.suffix == _TEMPORARY]
                    swept += sum(_remove_file(path, before) for path in parts)
                elif _changed(folder) < before:
                    with _storing():
                        _remove_folder(folder)
                    swept += 1
            if _changed(day) < before:
                self._durable_days.discard(day)
                with suppress(OSError):  # not empty
                    day.rmdir()
        return swept

    def _folder(self, case_id: str) -> Path:
        if not is_case_id(case_id):
            raise ValueError(f"{case_id!r} is no case id")
        return self._cases / case_id[:8] / case_id


@contextmanager
def _storing() -> Iterator[None]:
    """Turn what the file system says into the verdict that C-STORE answers with A700."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = Reason.NO_SPACE if full else Reason.CANNOT_STORE
        raise RetryLater(reason, f"spool: {error.strerror or type(error).__name__}") from error


def _create(path: Path) -> BinaryIO:
    """A new file for writing, mode 0600; fails if the name is taken."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _make_private(folder: Path) -> None:
    """Make a folder, mode 0700, and the one above it (mkdir gives parents another mode)."""
    for each in (folder.parent, folder):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)


def _fsync(path: Path) -> None:
    """Put a file's bytes, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _children(folder: Path) -> list[Path]:
    """What lies in a folder; empty if it is none, or has gone meanwhile."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _changed(path: Path) -> float:
    """Time of the last change, POSIX seconds; the far future if it has gone meanwhile."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _remove_file(path: Path, before: float) -> bool:
    """Delete a file that has not changed since `before`; tell whether it did."""
    if _changed(path) >= before:
        return False
    with _storing():
        path.unlink(missing_ok=True)
    return True


def _remove_folder(folder: Path) -> None:
    """Delete a case's folder with its files. A link is removed, never followed."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)
