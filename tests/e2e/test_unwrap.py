"""`respite unwrap` on a real Redis: afterwards a client that has never heard of Respite reads every key."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import lz4.block
import pytest
import redis

from proxy.config.load import load_settings
from proxy.net.values.unwrapping import BATCH_BYTES, BATCH_KEYS, PLACES, Job, batches, share_of, unwrap
from proxy.values.dictionary import id_of, stored
from proxy.values.envelope import MAGIC, Codec, wrap

from .servers import Kind, Server, ServerOptions, find_kind, wait_for
from .targets import running_respite

DICTIONARY = b'{"id": 0, "from": "agent", "text": "Thank you for your message, we will look into it.", "read": true}'
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one server for all tests here; that its scripts run on others is shown in tests/values."""
    with Server(redis7) as started:
        yield started


@pytest.fixture
def plain(server: Server) -> Iterator[redis.Redis]:
    """Give a plain client of the emptied server."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
        client.config_resetstat()
        client.hset("respite:dictionaries", *stored("chat", Codec.LZ4, DICTIONARY))
        yield client


def _run(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", "unwrap", "--upstream", server.url, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def _compressed(value: bytes, *, version: int = 0, dictionary: bytes = b"") -> bytes:
    if not dictionary:
        return wrap(value, version, codec=Codec.LZ4, body=lz4.block.compress(value, store_size=False))
    body = lz4.block.compress(value, store_size=False, dict=dictionary)
    return wrap(value, version, codec=Codec.LZ4, body=body, dictionary=id_of(dictionary))


def _value(number: int) -> bytes:
    return b'{"id": %d, "from": "agent", "text": "Thank you for your message.", "n": "%s"}' % (
        number,
        random.Random(number).randbytes(number % 40).hex().encode(),
    )


def _fill(plain: redis.Redis, count: int) -> dict[bytes, tuple[bytes, int]]:
    """Write values in every form a proxy leaves them in, and plain ones; return key -> (value, when it ends, -1 never).

    A moment of the server's clock, in ms: what is left of a TTL depends on when one looks.
    """
    expected: dict[bytes, tuple[bytes, int]] = {}
    now_ms = int(plain.time()[0]) * 1000
    pipeline = plain.pipeline(transaction=False)
    for number in range(count):
        key, value = b"k:%d" % number, _value(number)
        if number % 6 == 5:
            value = b"%d" % number
        forms = (
            value,
            wrap(value, 0),
            wrap(value, number + 1),
            _compressed(value, version=number),
            _compressed(value, version=number, dictionary=DICTIONARY),
            value,
        )
        ends_ms = -1 if number % 3 == 0 else now_ms + 600_000 + number * 7 % 3_600_000
        pipeline.set(key, forms[number % 6], pxat=None if ends_ms < 0 else ends_ms)
        expected[key] = (value, ends_ms)
        if number % 5_000 == 4_999:
            pipeline.execute()
    pipeline.execute()
    return expected


def _check(plain: redis.Redis, expected: Mapping[bytes, tuple[bytes, int]]) -> None:
    """Demand every value and every TTL, to the millisecond."""
    keys = list(expected)
    for at in range(0, len(keys), 5_000):
        some = keys[at : at + 5_000]
        pipeline = plain.pipeline(transaction=False)
        pipeline.mget(some)
        for key in some:
            pipeline.pexpiretime(key)
        values, *ends = pipeline.execute()
        assert dict(zip(some, zip(values, ends, strict=True), strict=True)) == {key: expected[key] for key in some}


def _snapshot(plain: redis.Redis) -> dict[bytes, object]:
    return {
        key: plain.get(key) if plain.type(key) == b"string" else plain.hgetall(key)
        for key in plain.scan_iter(count=1000)
    }


def _calls(plain: redis.Redis, command: str) -> int:
    return int(plain.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))


def test_unwrap_leaves_every_key_to_be_read_by_a_plain_client(server: Server, plain: redis.Redis) -> None:
    """Plain bodies, compressed ones, those with a dictionary, and what never was wrapped; TTLs stay as they are."""
    expected = _fill(plain, 3_000)
    plain.set("other:1", other := wrap(b"not asked for", 1))
    plain.rpush("k:list", wrap(b"an element", 1))

    done = _run(server, "--match", "k:*", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["finished"], report["unwrapped"], report["damaged"], report["left"]) == (True, 2_000, 0, [])
    assert report["keys"] >= 3_000
    _check(plain, expected)
    assert plain.get("other:1") == other
    assert plain.lrange("k:list", 0, -1) == [wrap(b"an element", 1)]
    assert not plain.exists(PLACES)

    again = json.loads(_run(server, "--match", "k:*", "--json").stdout)
    assert (again["unwrapped"], again["resumed"]) == (0, False)


def test_unwrap_dry_run_changes_nothing_and_counts(server: Server, plain: redis.Redis) -> None:
    """A dry run says what would be done; not a byte in Redis is another one afterwards."""
    _fill(plain, 300)
    before = _snapshot(plain)

    done = _run(server, "--match", "*", "--dry-run")

    assert done.returncode == 0
    assert done.stdout.startswith("200 of 300 values would be unwrapped: ")
    assert _snapshot(plain) == before


def test_unwrap_never_overwrites_what_a_client_writes_meanwhile(server: Server, plain: redis.Redis) -> None:
    """A writer that races it writes each key once, some in the very moment between look and swap: its value stands."""
    keys = [b"r:%d" % number for number in range(10_000)]
    pipeline = plain.pipeline(transaction=False)
    for key in keys:
        pipeline.set(key, wrap(b"first", 1))
    pipeline.execute()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "proxy",
            "unwrap",
            "--upstream",
            server.url,
            "--match",
            "r:*",
            "--rate",
            "1000000",
            "--json",
        ],
        stdout=subprocess.PIPE,
    )
    wait_for(lambda: _calls(plain, "scan") > 0, what="it runs", timeout_s=20)

    random.Random(7).shuffle(keys)
    with server.connect() as writer:
        for number, key in enumerate(keys):
            value = b"value of %b" % key
            writer.command("SET", key, value if number % 2 else wrap(value, number + 2))
    out, _ = process.communicate(timeout=DEADLINE_S)

    report = json.loads(out)
    assert (process.returncode, report["finished"], report["left"]) == (0, True, [])
    assert _run(server, "--match", "r:*").returncode == 0
    assert dict(zip(keys, plain.mget(keys), strict=True)) == {key: b"value of %b" % key for key in keys}


def test_unwrap_goes_on_where_ctrl_c_stopped_it(server: Server, plain: redis.Redis) -> None:
    """SIGINT half-way: it says how far it is and keeps its place; the same command does the rest, and only the rest."""
    expected = _fill(plain, 6_000)
    command = [sys.executable, "-m", "proxy", "unwrap", "--upstream", server.url, "--match", "k:*", "--rate", "2000"]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: plain.exists(PLACES) == 1, what="its place is kept", timeout_s=20)
    swapped = _calls(plain, "eval")
    wait_for(lambda: _calls(plain, "eval") > swapped + 400, what="it goes on", timeout_s=20)

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=DEADLINE_S)

    first = json.loads(out)
    assert (process.returncode, first["finished"]) == (1, False)
    assert 0.05 < first["share"] < 0.95
    assert 0 < first["unwrapped"] < 4_000
    second = json.loads(_run(server, "--match", "k:*", "--json", "--rate", "100000").stdout)
    assert (second["finished"], second["resumed"]) == (True, True)
    assert first["unwrapped"] + second["unwrapped"] == 4_000
    assert first["keys"] + second["keys"] < 6_100  # its place is that of the signal, not of a second before
    _check(plain, expected)
    assert not plain.exists(PLACES)


@pytest.mark.parametrize("saved", ['{"cursor": "17", "run_id": "another server"}', "garbage", '{"cursor": "x"}', "[]"])
def test_unwrap_starts_anew_where_a_cursor_means_nothing(server: Server, plain: redis.Redis, saved: str) -> None:
    """A cursor counts for one life of one server: on another one, it would pass over keys."""
    expected = _fill(plain, 60)
    plain.hset(PLACES, "0:k:*", saved)

    report = json.loads(_run(server, "--match", "k:*", "--json").stdout)

    assert (report["resumed"], report["finished"], report["unwrapped"]) == (False, True, 40)
    assert plain.get("k:1") == expected[b"k:1"][0]


def test_unwrap_from_start_forgets_its_place(server: Server, plain: redis.Redis) -> None:
    """Who wants it is given a whole pass."""
    _fill(plain, 60)
    run_id = plain.info("server")["run_id"]
    plain.hset(PLACES, "0:k:*", json.dumps({"cursor": "1", "run_id": run_id}))

    assert json.loads(_run(server, "--match", "k:*", "--json", "--dry-run").stdout)["resumed"] is False
    report = json.loads(_run(server, "--match", "k:*", "--json", "--from-start").stdout)

    assert (report["resumed"], report["unwrapped"]) == (False, 40)


def test_unwrap_that_goes_on_says_so(server: Server, plain: redis.Redis) -> None:
    """What lies before that place may have been written anew since, with envelopes: whoever goes back must know."""
    _fill(plain, 60)
    plain.hset(PLACES, "0:k:*", json.dumps({"cursor": "1", "run_id": plain.info("server")["run_id"]}))

    resumed, whole = _run(server, "--match", "k:*"), _run(server, "--match", "k:*")

    assert "--from-start" in resumed.stderr
    assert (whole.stderr, whole.returncode) == ("", 0)


def test_unwrap_names_what_it_cannot_open_and_leaves_it(server: Server, plain: redis.Redis) -> None:
    """Cut short, of a lost dictionary, or ambiguous once plain: counted, the first ten named, exit code 1."""
    whole = _compressed(_value(1) * 10, version=5)
    bad = {f"k:bad:{number}".encode(): whole[: -1 - number] for number in range(12)}
    bad[b"k:lost"] = _compressed(_value(2), dictionary=b"nobody has kept this one, whatever it was good for")
    bad[b"k:twice"] = wrap(wrap(b"an envelope as a value", 1), 2)
    bad[b"k:short"] = MAGIC
    for key, value in bad.items():
        plain.set(key, value, ex=1000)
    plain.set("k:good", wrap(b"good", 1))

    done = _run(server, "--match", "k:*")
    report = json.loads(_run(server, "--match", "k:*", "--json").stdout)

    assert done.returncode == 1
    assert "15 values left as they are" in done.stderr
    assert done.stderr.count(": damaged: ") + done.stderr.count("begins as an envelope does") == 10
    assert "and 5 more" in done.stderr
    assert (report["damaged"], report["ambiguous"], len(report["left"])) == (14, 1, 10)
    assert {key: plain.get(key) for key in bad} == bad
    assert plain.get("k:good") == b"good"


def test_unwrap_works_in_the_database_it_is_told(server: Server, plain: redis.Redis) -> None:
    """That of the URL, or of --db; dictionaries are found all the same."""
    stored_value = _compressed(_value(4), dictionary=DICTIONARY)
    with redis.Redis(port=server.port, db=2) as two, redis.Redis(port=server.port, db=5) as five:
        for client in (plain, two, five):
            client.set("k", stored_value)

        assert _run(server, "--match", "k", "--upstream", server.url + "/2").returncode == 0
        assert (plain.get("k"), two.get("k"), five.get("k")) == (stored_value, _value(4), stored_value)
        assert _run(server, "--match", "k", "--db", "5").returncode == 0
        assert (plain.get("k"), five.get("k")) == (stored_value, _value(4))


def test_unwrap_keeps_to_its_rate(server: Server, plain: redis.Redis) -> None:
    """The load is bounded: 3,000 keys at 1,000 a second are no matter of an instant."""
    expected = _fill(plain, 3_000)
    settings = load_settings(None, env={}, overrides={"upstream.url": server.url}).upstream
    shares: list[float] = []

    begun = time.monotonic()
    progress = unwrap(settings, Job(b"k:*", 0, rate=1000), lambda progress: shares.append(progress.share))

    assert progress.is_finished
    assert time.monotonic() - begun > 2.5
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert 0.3 < shares[len(shares) // 2] < 0.7
    _check(plain, expected)


@pytest.mark.parametrize(
    ("listen", "user"),
    [
        ({}, ""),
        ({}, "app:s3cret@"),
        ({"deny_commands": ["respite"]}, ""),
        ({"users": [{"name": "web", "password": "s3cret", "respite": "none"}]}, "web:s3cret@"),
    ],
)
def test_unwrap_through_a_proxy_is_refused(
    server: Server, plain: redis.Redis, listen: dict[str, object], user: str
) -> None:
    """A proxy opens what passes, even for a dry run; that it refuses somebody RESPITE gives it away as well."""
    plain.acl_setuser("app", enabled=True, passwords=["+s3cret"], keys="*", commands=["+@all", "-config"])
    plain.set("k", wrap(b"v", 1))
    with running_respite(
        {
            "upstream": {"url": server.url},
            "listen": listen,
            "class": [{"name": "all", "match": ["*"], "version": True}],
        }
    ) as respite:
        done = _run(server, "--match", "*", "--dry-run", "--upstream", f"redis://{user}127.0.0.1:{respite.port}")

    assert done.returncode == 1
    assert "is a Respite proxy" in done.stderr
    assert plain.get("k") == wrap(b"v", 1)
    assert _run(server, "--match", "*", "--upstream", f"redis://app:s3cret@127.0.0.1:{server.port}").returncode == 0
    assert plain.get("k") == b"v"


def test_unwrap_of_a_redis_that_refuses_says_so_in_one_line() -> None:
    """Wrong credentials, a database that is not there, nobody listening: the reason, exit code 1, no traceback."""
    with Server(find_kind("redis7"), ServerOptions(password="s3cret", databases=2)) as server:
        url = f"redis://:s3cret@127.0.0.1:{server.port}"
        for words, reason in (
            ((), "NOAUTH"),
            (("--upstream", url.replace("s3cret", "other")), "WRONGPASS"),
            (("--upstream", url + "/7"), "out of range"),
        ):
            done = _run(server, "--match", "*", *words)
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert reason in done.stderr
        assert _run(server, "--match", "*", "--upstream", url).returncode == 0
        server.kill()
        refused = _run(server, "--match", "*", "--upstream", url).stderr
        assert refused.startswith("respite: redis://127.0.0.1:"), refused  # of several that it could have been
        assert "refused" in refused


def test_unwrap_that_loses_its_redis_goes_on_later(plain: redis.Redis, server: Server) -> None:
    """A connection that is cut is an error; its place, kept a second ago at most, is where the next run begins."""
    _fill(plain, 6_000)
    command = [sys.executable, "-m", "proxy", "unwrap", "--upstream", server.url, "--match", "k:*", "--rate", "2000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: plain.exists(PLACES) == 1, what="its place is kept", timeout_s=20)

    plain.client_kill_filter(_type="normal", skipme=True)
    _, err = process.communicate(timeout=DEADLINE_S)

    assert (process.returncode, err.count(b"\n")) == (1, 1)
    report = json.loads(_run(server, "--match", "k:*", "--json", "--rate", "100000").stdout)
    assert (report["resumed"], report["finished"]) == (True, True)
    assert all(not (plain.get(f"k:{number}") or b"").startswith(MAGIC) for number in range(0, 6_000, 7))


def test_unwrap_does_a_million_keys_in_minutes() -> None:
    """30,000 in 20 seconds at most, however busy the machine: at that pace a million takes eleven minutes."""
    with Server(find_kind("redis7")) as server, redis.Redis(port=server.port) as plain:
        plain.hset("respite:dictionaries", *stored("chat", Codec.LZ4, DICTIONARY))
        expected = _fill(plain, 30_000)

        begun = time.monotonic()
        report = json.loads(_run(server, "--match", "k:*", "--json", "--rate", "1000000").stdout)
        took_s = time.monotonic() - begun

        assert (report["finished"], report["unwrapped"]) == (True, 20_000)
        assert took_s < 20
        _check(plain, expected)


def test_batches_are_bounded_in_keys_and_bytes() -> None:
    """No script reads more than its share at once, except of one value that is larger by itself."""
    keys = [b"%d" % number for number in range(250)]
    assert [len(batch) for batch in batches(keys, [10] * 250)] == [BATCH_KEYS, BATCH_KEYS, 250 - 2 * BATCH_KEYS]
    half = BATCH_BYTES // 2
    assert list(batches([b"a", b"b", b"c", b"d"], [half, half, half, BATCH_BYTES * 9])) == [
        [b"a", b"b"],
        [b"c"],
        [b"d"],
    ]
    assert list(batches([b"a", b"b"], [redis.ResponseError("WRONGTYPE"), 1])) == [[b"b"]]
    assert list(batches([], [])) == []


@pytest.mark.parametrize(("cursor", "share"), [(0, 0.0), (1 << 63, 2**-64), (1, 0.5), (3, 0.75), (0b10, 0.25)])
def test_share_of_a_cursor_reads_its_bits_from_the_end(cursor: int, share: float) -> None:
    """A cursor of SCAN counts up in reverse."""
    assert share_of(cursor) == share
