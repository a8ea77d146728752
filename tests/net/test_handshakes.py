"""TLS towards clients while files change and strangers are at the door."""

from __future__ import annotations

import socket
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from proxy.config.load import default_settings
from proxy.net.door import handshakes
from proxy.net.door.certificates import Certificates
from proxy.tls.certificate import ending_soon

from ..tls.pems import Pems, at
from .conftest import Serve
from .driver import Client, Proxy, make_settings, within
from .peer import Peer, until

PONG = b"+PONG\r\n"


async def _proxy(serve: Serve, peer: Peer, pems: Pems) -> Proxy:
    pems.write()
    return await serve(peer, make_settings("rediss://127.0.0.1:0", listen={"tls": pems.settings()}))


def _serial(client: Client) -> object:
    assert isinstance(client.stream, trio.SSLStream)
    return client.stream.getpeercert()["serialNumber"]


async def test_new_files_are_shown_to_who_connects_next(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """Connections that stand go on; the next gets the new one, without a reload; a wrong file changes nothing."""
    pems = Pems(tmp_path)
    proxy = await _proxy(serve, peer, pems)
    first = await proxy.connect_tls(pems.trusting())

    pems.write()
    second = await proxy.connect_tls(pems.trusting())
    pems.key.write_text("garbage")
    third = await proxy.connect_tls(pems.trusting())

    assert _serial(first) != _serial(second) == _serial(third)
    assert [await one.command("PING") for one in (first, second, third)] == [PONG] * 3
    (row,) = proxy.stats()["tls"]["certificates"]
    assert (row["name"], row["renewed_total"]) == ("listen", 1)
    assert row["problem"]


async def test_reload_takes_new_files_at_once(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """Also while nobody connects: the log says so, and the figures know."""
    pems = Pems(tmp_path)
    proxy = await _proxy(serve, peer, pems)
    pems.write(ends=at(2031))

    with capture_logs() as logs:
        proxy.worker.apply(proxy.worker.settings)

    assert "TLS files have changed, they are used from now on" in [line["event"] for line in logs]
    (row,) = proxy.stats()["tls"]["certificates"]
    assert (row["ends_at"], row["renewed_total"], row["problem"]) == ("2031-01-01T00:00:00Z", 1, "")
    families = {family.name: family for family in proxy.worker.families()}
    (sample,) = families["respite_tls_certificate_expires_seconds"].samples
    assert dict(sample.labels) == {"certificate": "listen"}
    assert abs(sample.value - (at(2031) - datetime.now(UTC)).total_seconds()) < 60


async def test_handshakes_that_do_not_move_make_room(
    peer: Peer, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many stop in the middle, who comes next is served at once, long before any of them is too slow."""
    monkeypatch.setattr(handshakes, "TLS_HANDSHAKES", 8)
    monkeypatch.setattr(handshakes, "TLS_HANDSHAKE_S", 600.0)
    pems = Pems(tmp_path)
    proxy = await _proxy(serve, peer, pems)
    listening = proxy.worker.listeners[0].handshakes
    assert listening is not None
    silent = [await proxy.connect() for _ in range(40)]
    for number, client in enumerate(silent):
        await client.send_raw(b"\x16\x03\x01\x02\x00\x01"[: number % 7])

    served = [await proxy.connect_tls(pems.trusting()) for _ in range(20)]
    assert [await one.command("PING") for one in served] == [PONG] * 20

    assert listening.under_way <= 8
    assert await silent[0].until_closed() == b""


async def test_handshake_of_garbage_ends_that_connection_only(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """A plain client, another protocol, noise, and one that resets: each is closed, and the next is served."""
    pems = Pems(tmp_path)
    proxy = await _proxy(serve, peer, pems)
    for noise in (
        b"*1\r\n$4\r\nPING\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 300,
        b"\x16\x03\x01\xff\xff" + b"A" * 900,
    ):
        stranger = await proxy.connect()
        await stranger.send_raw(noise)
        await stranger.until_closed()
    resetting = socket.create_connection(("127.0.0.1", proxy.port))
    resetting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    resetting.close()
    await until(lambda: proxy.stats()["clients"]["handshakes_failed_total"] == 5, "all have failed")

    client = await proxy.connect_tls(pems.trusting())
    assert await client.command("PING") == PONG
    assert proxy.stats()["clients"]["connected"] == 1


async def test_client_that_wants_an_old_version_is_refused(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """TLS 1.1 is not spoken by the listener."""
    pems = Pems(tmp_path)
    proxy = await _proxy(serve, peer, pems)
    old = pems.trusting()
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    plain = await within(trio.open_tcp_stream("127.0.0.1", proxy.port), "connected")
    with pytest.raises(trio.BrokenResourceError):
        await trio.SSLStream(plain, old, server_hostname="127.0.0.1").do_handshake()
    await plain.aclose()


def test_certificate_that_ends_soon_is_warned_of_once_a_day(tmp_path: Path) -> None:
    """Fourteen days before its end the log begins to say so; `check` says it, too; with more time left nobody does."""
    pems = Pems(tmp_path)
    ends = datetime(2030, 6, 15, tzinfo=UTC)
    pems.write(ends=ends)
    settings = make_settings(listen={"tls": pems.settings()})
    now = [(ends - timedelta(days=15)).timestamp()]
    certificates = Certificates(settings, clock=lambda: now[0])

    def lines(monotonic: float) -> list[tuple[str, float]]:
        with capture_logs() as logs:
            certificates.tick(monotonic)
        return [(line["event"], line["days"]) for line in logs]

    assert lines(0.0) == []
    assert list(ending_soon(settings, now[0])) == []
    now[0] += 2 * 86400
    assert lines(2 * 86400.0) == [("a certificate ends soon", 13.0)]
    assert lines(2 * 86400.0 + 3600) == []
    now[0] += 14 * 86400
    assert lines(16 * 86400.0) == [("a certificate has ended", -1.0)]
    assert list(ending_soon(settings, now[0])) == ["listen.tls.cert has ended at 2030-06-15T00:00:00Z"]
    assert certificates.report()["certificates"][0]["ends_in_s"] == -86400
    assert Certificates(default_settings()).report() == {"certificates": []}
