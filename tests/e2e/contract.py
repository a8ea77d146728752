"""What clients are promised to read when something fails (INTERFACE.md section 7), spelled out here on purpose."""

from __future__ import annotations

from .raw import ClosedError, NoFrameError, RawClient
from .servers import wait_for

UNAVAILABLE = b"-ERR respite: upstream unavailable\r\n"
LOST = b"-ERR respite: upstream lost, the command may have been applied\r\n"
TIMED_OUT = b"-ERR respite: upstream timed out, the command may have been applied\r\n"
TOO_MANY_CLIENTS = b"-ERR max number of clients reached\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"


def is_alive(client: RawClient, key: str = "alive") -> bool:
    """Tell whether a connection writes and reads."""
    try:
        return client.command("SET", key, "x") == b"+OK\r\n" and client.command("GET", key) == b"$1\r\nx\r\n"
    except (OSError, ClosedError, NoFrameError):
        return False


def wait_until_alive(client: RawClient, timeout_s: float = 10.0) -> None:
    """Wait until Redis answers again through a connection that was open all the time."""
    wait_for(lambda: is_alive(client), what="service again on the same connection", timeout_s=timeout_s)
