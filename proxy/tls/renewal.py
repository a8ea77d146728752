r"""A TLS context that follows its files: whoever connects next gets what they hold now.

    current --> files as they were --> the context there is
            \-> changed --> a new context --> from now on
                        \-> of no use: the old one stays, and the log says why

Certificates are replaced while a proxy runs, mostly one file after the other: between the two they do not fit, and the
next look finds that they do. What was agreed with those who are connected already stays as it is.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from proxy.log import get_logger

log: Final = get_logger("tls")
_Signature = tuple[tuple[int, int, int, int] | None, ...]


class Renewable:
    """One context. `what` names it in the log; raises OSError at first when its files cannot be used."""

    def __init__(self, what: str, paths: Sequence[str], make: Callable[[], ssl.SSLContext]) -> None:
        self.what = what
        self.problem = ""
        """Why what the files hold now is not used, "" where it is."""
        self.renewed = 0
        self._paths = tuple(path for path in paths if path)
        self._make = make
        # Looked at before they are read: what changes in between is found at the next look.
        self._seen = self._look()
        self._context = make()

    @classmethod
    def fixed(cls, context: ssl.SSLContext) -> Renewable:
        """Return one that has no files, and stays as it is."""
        return cls("", (), lambda: context)

    def current(self) -> ssl.SSLContext:
        """Return the context for the next handshake. Costs a stat a file, unless they have changed."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._renew()
        return self._context

    def _renew(self) -> None:
        try:
            self._context = self._make()
        except OSError as exc:
            self.problem = str(exc)
            log.warning("TLS files have changed and cannot be used, the old ones stay", of=self.what, why=self.problem)
            return
        self.problem = ""
        self.renewed += 1
        log.info("TLS files have changed, they are used from now on", of=self.what)

    def _look(self) -> _Signature:
        return tuple(map(_signature, self._paths))


def _signature(path: str) -> tuple[int, int, int, int] | None:
    """Return what changes whenever a file does, its rights included; None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
