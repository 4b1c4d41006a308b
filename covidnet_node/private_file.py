"""Secrets lie in files of their own: tokens and private keys, which nobody else may read.

They may be credentials of systemd (`LoadCredential=`), which guards these itself.
"""

import os
import stat
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Exposed(ValueError):
    """A secret that others may read: it is not used."""


def check_private(path: Path) -> None:
    """Look who may read a secret; raises Exposed, or OSError if it is not there.

    A file of root's may be read by its group: so an administrator gives a service a secret that the
    service cannot change.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and path.resolve().is_relative_to(Path(folder).resolve()):
        return
    found = path.stat()
    allowed = stat.S_IRGRP if found.st_uid == 0 else 0
    mode = stat.S_IMODE(found.st_mode)
    if mode & OTHERS & ~allowed:
        raise Exposed(f"{path} may be read or changed by others (mode {mode:04o}); chmod it 0600")


def read_token(path: Path) -> str:
    """Read a token, without the space around it.

    Raises Exposed, OSError, or ValueError for what is no token.
    """
    check_private(path)
    token = path.read_text(encoding="ascii", errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ValueError(f"{path} holds no token")
    return token
