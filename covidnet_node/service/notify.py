"""Tell systemd how we are: sd_notify(3), a datagram to the socket it names."""

import os
import socket


def notify(state: str) -> None:
    """Send e.g. "READY=1" or "WATCHDOG=1"; without systemd (no NOTIFY_SOCKET) does nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            # Nobody listens any more; a node must not die of that.
            return


def watchdog_interval() -> float | None:
    """Seconds between two WATCHDOG=1, half of what systemd allows; None without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None
