"""What is known of dictionaries: by id, by class, from when they are used, and when the next one is due."""

from __future__ import annotations

import pytest

from proxy.values import dictionary as module
from proxy.values.dictionary import (
    AGAIN_AFTER_S,
    ENOUGH_BYTES,
    ENOUGH_SAMPLES,
    KNOWN_MAX,
    SAMPLE_EVERY,
    SAMPLE_EVERY_LATER,
    SAMPLE_MAX_BYTES,
    SAMPLES_MAX,
    SAMPLES_MAX_BYTES,
    WINDOW,
    Dictionaries,
    Stored,
    id_of,
    parse_stored,
    stored,
)
from proxy.values.envelope import Codec, DictionaryBytes, open_value, wrap

ONE, TWO, THREE = b"the first dictionary" * 5, b"another dictionary" * 5, b"yet another one" * 5


def learn(known: Dictionaries, data: bytes, now: float, codec: Codec = Codec.LZ4, name: str = "chat") -> None:
    """Learn one, as it comes from Redis."""
    known.learn(id_of(data), name, codec, data, now)


def current(known: Dictionaries, now: float, name: str = "chat") -> bytes | None:
    """Return the bytes of the one in use."""
    found = known.current(name, now)
    return None if found is None else bytes(found.data)


def fill(known: Dictionaries, values: int = ENOUGH_SAMPLES, size: int = 200, every: int = SAMPLE_EVERY) -> None:
    """Offer so many values that this many are kept."""
    for number in range(values * every):
        known.sample("chat", b"%08d" % number + b"x" * (size - 8))


def test_learn_is_known_at_once_and_used_a_second_later() -> None:
    """Others may use it already; we use it when all others have heard of it."""
    known = Dictionaries()
    learn(known, ONE, 10.0)

    assert {id_of(ONE): ONE} == known.known
    assert isinstance(known.known[id_of(ONE)], DictionaryBytes)
    assert current(known, 10.9) is None
    assert current(known, 11.0) == ONE
    assert current(known, 11.0, "other") is None


def test_learn_the_newest_is_used_and_older_ones_stay_known() -> None:
    """Until the second has passed the one before is used, and its values are opened after that, too."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    assert current(known, 5.0) == ONE
    learn(known, TWO, 10.0)

    assert current(known, 10.9) == ONE
    assert current(known, 11.0) == TWO
    assert {id_of(ONE): ONE, id_of(TWO): TWO} == known.known


def test_learn_again_changes_nothing() -> None:
    """Announcements come twice: the one in use stays in use."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    learn(known, ONE, 0.9)
    assert current(known, 1.0) == ONE
    held = known.known[id_of(ONE)]
    learn(known, ONE, 5.0)

    assert current(known, 5.0) == ONE
    assert known.known[id_of(ONE)] is held


def test_learn_what_is_not_of_its_id_is_lost() -> None:
    """Bytes that somebody has changed in Redis would open values wrongly."""
    known = Dictionaries()
    known.learn(id_of(ONE), "chat", Codec.LZ4, TWO, 0.0)

    assert {id_of(ONE): b""} == known.known
    assert current(known, 9.0) is None


def test_lost_in_redis_and_known_here_stays_known() -> None:
    """Values that need it can still be read here."""
    known = Dictionaries()
    known.learn(id_of(ONE), "small", Codec.LZ4, ONE, 0.0)
    known.lost(id_of(ONE))

    assert known.known == {id_of(ONE): ONE}
    assert [(name, one.id) for name, one in known.in_use()] == [("small", id_of(ONE))]


def test_learn_lost_one_turns_up_is_known() -> None:
    """Lost is what is known now, not for ever."""
    known = Dictionaries()
    known.lost(id_of(ONE))
    learn(known, ONE, 0.0)

    assert {id_of(ONE): ONE} == known.known


def test_learn_of_another_codec_does_not_take_the_place_of_ours() -> None:
    """Two sidecars configured differently keep one each; else each would train after the other for ever."""
    known = Dictionaries()
    learn(known, ONE, 0.0, Codec.ZSTD)
    assert current(known, 1.0) == ONE
    learn(known, TWO, 1.0, Codec.LZ4)
    assert current(known, 2.0) == TWO
    learn(known, THREE, 2.0, Codec.ZSTD)

    assert current(known, 3.0) == TWO
    assert known.known[id_of(THREE)] == THREE


def test_learn_zstd_not_installed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known, and values are compressed with what can be used here."""
    monkeypatch.setattr(module, "HAS_ZSTD", False)
    known = Dictionaries()
    learn(known, ONE, 0.0, Codec.ZSTD)

    assert current(known, 9.0) is None
    assert known.known[id_of(ONE)] == ONE


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_current_compresses_what_known_opens(codec: Codec) -> None:
    """The two halves belong together."""
    known = Dictionaries()
    learn(known, ONE, 0.0, codec)
    used = known.current("chat", 1.0)
    assert used is not None
    value = b"the first dictionary, once more"
    data = wrap(value, 0, codec=used.codec, body=used.compress(value), dictionary=used.id)

    assert len(data) < len(wrap(value, 0))
    assert open_value(data, known.known)[0] == value


def test_known_is_bounded_and_keeps_what_is_used() -> None:
    """The oldest goes first; it is asked for again when a value needs it."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    for number in range(KNOWN_MAX + 5):
        known.lost(number + 1)

    assert len(known.known) == KNOWN_MAX
    assert known.known[id_of(ONE)] == ONE
    assert 1 not in known.known
    assert KNOWN_MAX + 5 in known.known


@pytest.mark.parametrize("data", [ONE, b"\0a\0\xff" * 9])
def test_stored_is_read_back(data: bytes) -> None:
    """As it lies in the hash, and whatever its bytes."""
    field, value = stored("chät", Codec.ZSTD, data)

    assert b"%d" % id_of(data) == field
    assert b"ch\xc3\xa4t\x002\0" + data == value
    assert Stored(id_of(data), "chät", Codec.ZSTD, data) == parse_stored(field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"1", b"chat\x001\0" + ONE),
        (b"%d" % id_of(ONE), b"chat\x003\0" + ONE),
        (b"%d" % id_of(ONE), b"chat\x00x\0" + ONE),
        (b"%d" % id_of(ONE), ONE),
        (b"1", b"chat\x001\0"),
        (b"", b""),
        (b"x", b"chat\x001\0" + ONE),
    ],
)
def test_parse_stored_what_is_none_is_none(field: bytes, value: bytes) -> None:
    """Another id than that of the bytes, no codec of ours, cut short."""
    assert parse_stored(field, value) is None


def test_id_of_is_never_none() -> None:
    """0 stands for no dictionary in an envelope."""
    assert id_of(b"") == 1
    assert id_of(b"123456789") == 0xCBF43926


def test_due_with_enough_samples_once() -> None:
    """A class is handed out once, with what was sampled, and not again while that is being worked on."""
    known = Dictionaries()
    fill(known, ENOUGH_SAMPLES - 1)
    assert known.due(0.0) is None
    fill(known, 1)
    found = known.due(0.0)

    assert found is not None
    assert found[0] == "chat"
    assert len(found[1]) == ENOUGH_SAMPLES
    assert known.due(AGAIN_AFTER_S - 1) is None
    assert known.due(AGAIN_AFTER_S) is not None


def test_due_needs_bytes_as_well() -> None:
    """Many tiny values are not enough to learn from."""
    known = Dictionaries()
    fill(known, ENOUGH_SAMPLES, 70)

    assert ENOUGH_SAMPLES * 70 < ENOUGH_BYTES
    assert known.due(0.0) is None


def test_due_not_for_a_class_that_has_one() -> None:
    """Nor for one whose dictionary is not used yet: another sidecar has been quicker."""
    known = Dictionaries()
    fill(known)
    learn(known, ONE, 0.0)
    fill(known)
    assert known.due(0.5) is None
    current(known, 1.0)
    fill(known, every=SAMPLE_EVERY_LATER)

    assert known.due(9.0) is None


def test_due_for_a_class_whose_dictionary_is_of_another_codec() -> None:
    """The codec was changed: what was learnt for the old one is used until there is one for the new."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    assert current(known, 1.0) == ONE
    known.codec = Codec.ZSTD
    fill(known, every=SAMPLE_EVERY_LATER)

    assert known.due(2.0) is not None
    assert current(known, 2.0) == ONE


def use(known: Dictionaries, saving: float) -> None:
    """Let a window of values be compressed."""
    for _ in range(WINDOW):
        known.used("chat", 1000, round(1000 * (1 - saving)))


def test_due_when_the_dictionary_has_grown_old() -> None:
    """Saving a little less is no reason, saving much less than it did is; until then samples are few."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    current(known, 1.0)
    use(known, 0.5)
    use(known, 0.4)
    fill(known)
    assert known.due(2.0) is None
    use(known, 0.3)
    assert known.due(3.0) is None
    fill(known)

    assert known.due(4.0) is not None


def test_due_when_the_dictionary_never_paid() -> None:
    """One that was learnt elsewhere may be of no use here."""
    known = Dictionaries()
    fill(known)
    learn(known, ONE, 0.0)
    current(known, 1.0)
    use(known, 0.05)
    assert known.due(2.0) is None  # what was sampled before is what it was made from
    fill(known)

    assert known.due(3.0) is not None


def test_due_not_while_the_successor_of_an_old_one_is_coming() -> None:
    """Another sidecar has seen it, too, and was quicker."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    current(known, 1.0)
    use(known, 0.05)
    learn(known, TWO, 2.0)
    fill(known)

    assert known.due(2.5) is None


def test_used_window_does_not_reach_back_before_a_new_dictionary() -> None:
    """Values of the one before say nothing about it, not even in part."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    current(known, 1.0)
    for _ in range(WINDOW - 1):
        known.used("chat", 1000, 1000)
    learn(known, TWO, 2.0)
    current(known, 3.0)
    known.used("chat", 1000, 100)
    fill(known, every=SAMPLE_EVERY_LATER)

    assert known.due(4.0) is None


def test_learn_a_new_one_after_the_old_is_judged_on_its_own() -> None:
    """What its predecessor saved says nothing about it."""
    known = Dictionaries()
    learn(known, ONE, 0.0)
    current(known, 1.0)
    use(known, 0.8)
    use(known, 0.3)
    learn(known, TWO, 5.0)
    current(known, 6.0)
    use(known, 0.3)
    fill(known, every=SAMPLE_EVERY_LATER)

    assert known.due(7.0) is None


def test_trained_for_nothing_waits_longer_each_time_and_samples_anew() -> None:
    """What could not be learnt from is thrown away; nobody trains all day."""
    known = Dictionaries()
    waits, now = [], 0.0
    for _ in range(12):
        fill(known)
        began = now
        while known.due(now) is None:
            now += 60
        waits.append(now - began)
        known.trained("chat", None, now)
        assert known.due(now + 1e9) is None

    assert [0, 300, 600, 1200] == waits[:4]
    assert 86_400 <= waits[-1] <= 86_400 + 60


def test_sample_is_bounded_in_number_and_bytes_and_keeps_the_latest() -> None:
    """Every fourth value, cut short if long; the oldest go when it is full."""
    known = Dictionaries()
    fill(known, SAMPLES_MAX + 10)
    found = known.due(0.0)
    assert found is not None
    assert len(found[1]) == SAMPLES_MAX
    assert found[1][-1].startswith(b"%08d" % ((SAMPLES_MAX + 10) * SAMPLE_EVERY - 1))
    for number in range(2_000):
        known.sample("chat", b"%06d" % number * 10_000)
    found = known.due(1e9)

    assert found is not None
    assert sum(map(len, found[1])) <= SAMPLES_MAX_BYTES
    assert {SAMPLE_MAX_BYTES} == set(map(len, found[1]))
