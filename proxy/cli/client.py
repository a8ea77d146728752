"""The CLI's side of the admin port: one small blocking HTTP client.

Owns the one connection a command needs and the words a person reads when it fails: what was tried, and what to do next.
Uses the standard library only, so that a command starts in milliseconds.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import quote

import attrs

from proxy.config.endpoint import parse_admin_url
from proxy.errors import RespiteError

# The proxy answers from memory; one that takes longer has other trouble, and a person is waiting.
_TIMEOUT_S: Final = 5.0
# What it asks Redis for first may take upstream.response_timeout, 5 s; then it says itself what is wrong.
_REDIS_TIMEOUT_S: Final = 30.0
# The admin port takes 64 KiB; a command line has room for more.
_EVENT_BYTES: Final = 48 * 1024
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
        return self._ask("GET", f"/explain.json?key={quote(key, safe='')}", timeout_s=_REDIS_TIMEOUT_S)

    def reload(self) -> dict[str, Any]:
        """Have the file read again; a file with problems is an answer, not an error. Raises AdminError."""
        return self._ask("POST", "/reload")

    def invalidate(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Have an event of INTERFACE.md section 5 acted on; what was dropped in each tier. Raises AdminError.

        What names more than the admin port takes at once is sent in parts; those before one that fails are done.
        """
        answers = [
            self._ask("POST", "/invalidate", json.dumps(part).encode(), timeout_s=_REDIS_TIMEOUT_S)
            for part in _parts(event)
        ]
        if len(answers) == 1:
            return answers[0]
        return {name: sum(answer.get(name, 0) for answer in answers) for name in answers[0]}

    def drain(self) -> dict[str, Any]:
        """Begin the end of the proxy. Raises AdminError."""
        return self._ask("POST", "/drain")

    def _ask(
        self, method: str, target: str, posted: bytes | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        status, body = self._exchange(method, target, posted, timeout_s or _TIMEOUT_S)
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

    def _exchange(self, method: str, target: str, posted: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if posted is not None:
            headers["Content-Type"] = "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, target, posted, headers)
            response = connection.getresponse()
            return response.status, response.read(_MAX_BODY_BYTES)
        except TimeoutError as exc:
            raise AdminError(
                f"{self.url} did not answer within {timeout_s:g} s; is it an admin port, and is its machine up?"
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


def _parts(event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield events of a bounded size that together name what one does."""
    rest = {field: value for field, value in event.items() if not isinstance(value, list)}
    part: dict[str, Any] = {}
    size = 0
    for field, names in event.items():
        for name in names if isinstance(names, list) else ():
            cost = len(json.dumps(name)) + 2
            if part and size + cost > _EVENT_BYTES:
                yield rest | part
                part, size = {}, 0
            part.setdefault(field, []).append(name)
            size += cost
    yield rest | part
