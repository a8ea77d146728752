"""The CLI's side of the admin port: one small blocking HTTP client.

Owns the one connection a command needs and the words a person reads when it fails: what was tried, and what to do next.
Uses the standard library only, so that a command starts in milliseconds.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import quote

import attrs

from proxy.config.endpoint import parse_admin_url
from proxy.errors import RespiteError

# The proxy answers from memory; one that takes longer has other trouble, and a person is waiting.
_TIMEOUT_S: Final = 5.0
# 10,000 links come to about 2 MB; more than this is no admin port of ours.
_MAX_BODY_BYTES: Final = 32 * 1024 * 1024


class AdminError(RespiteError):
    """The admin port could not be asked, or refused; the text is one line for a person."""


@attrs.define
class AdminClient:
    """Asks the admin port at `url`, with `token` unless it is ""."""

    url: str
    token: str
    _host: str
    _port: int

    @classmethod
    def at(cls, url: str, token: str) -> Self:
        """Make a client; asks nothing yet. Raises ValueError, with the reason, when `url` is none of an admin port."""
        host, port = parse_admin_url(url)
        if any(char < " " for char in token) or not token.isascii():
            raise ValueError("a token holds printable ASCII only")
        return cls(url, token, host, port)

    def stats(self) -> dict[str, Any]:
        """Return /stats.json. Raises AdminError."""
        return self._ask("GET", "/stats.json")

    def report(self) -> dict[str, Any]:
        """Return /report.json. Raises AdminError."""
        return self._ask("GET", "/report.json")

    def history(self, figures: Sequence[str], *, seconds: int, step: int) -> dict[str, Any]:
        """Return /history.json of some figures. Raises AdminError."""
        return self._ask("GET", f"/history.json?figure={','.join(figures)}&seconds={seconds}&step={step}")

    def explain(self, key: bytes) -> dict[str, Any]:
        """Return /explain.json for a key of any bytes. Raises AdminError."""
        return self._ask("GET", f"/explain.json?key={quote(key, safe='')}")

    def reload(self) -> dict[str, Any]:
        """Have the file read again; a file with problems is an answer, not an error. Raises AdminError."""
        return self._ask("POST", "/reload")

    def invalidate(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Have an event of INTERFACE.md section 5 acted on; what was dropped in each tier. Raises AdminError."""
        return self._ask("POST", "/invalidate", json.dumps(event).encode())

    def drain(self) -> dict[str, Any]:
        """Begin the end of the proxy. Raises AdminError."""
        return self._ask("POST", "/drain")

    def _ask(self, method: str, target: str, posted: bytes | None = None) -> dict[str, Any]:
        status, body = self._exchange(method, target, posted)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise AdminError(f"what answers at {self.url} is no Respite admin port; name it with --admin URL")
        if status < 300 or "problems" in answer:
            return answer
        if status == 401:
            given = "the token was not accepted" if self.token else "a token is wanted"
            raise AdminError(f"{self.url}: {given}; give listen.admin_token by --token or RESPITE_ADMIN_TOKEN")
        raise AdminError(f"{self.url}: {answer.get('error', f'status {status}')}; {answer.get('help', 'see its log')}")

    def _exchange(self, method: str, target: str, posted: bytes | None) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if posted is not None:
            headers["Content-Type"] = "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, target, posted, headers)
            response = connection.getresponse()
            return response.status, response.read(_MAX_BODY_BYTES)
        except TimeoutError as exc:
            raise AdminError(
                f"{self.url} did not answer within {_TIMEOUT_S:g} s; is it an admin port, and is its machine up?"
            ) from exc
        except ConnectionRefusedError as exc:
            raise AdminError(
                f"no proxy answers at {self.url} (connection refused); start one with `respite run`, "
                f"or name another admin port with --admin URL or RESPITE_ADMIN"
            ) from exc
        except OSError as exc:
            raise AdminError(
                f"{self.url} cannot be reached ({exc.strerror or exc}); check --admin URL and RESPITE_ADMIN"
            ) from exc
        except http.client.HTTPException as exc:
            raise AdminError(f"what answers at {self.url} speaks no HTTP; name an admin port with --admin URL") from exc
        finally:
            connection.close()
