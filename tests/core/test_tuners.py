"""When each tuner proposes a step, which one, and what it promises."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.model import ClassSettings, Settings
from proxy.core.tuners.admission import AdmissionTuner
from proxy.core.tuners.lifetimes import BoundTuner, WindowTuner
from proxy.core.tuners.room import RoomTuner
from proxy.core.tuners.spans import Moment, Small, Span, Tiers, take_moment
from proxy.core.tuners.threshold import TRY_EVERY, SmallValues, ThresholdTuner
from proxy.core.tuners.tuner import Step, Tuner
from proxy.values.sealing import Sealer

from .tuning_parts import MIB, make_engine, make_settings, make_values, missing, small, span, spans, with_class

SETTINGS = make_settings()


def proposed(tuner: Tuner, now: Settings = SETTINGS, configured: Settings = SETTINGS, **counted: Any) -> Step | None:
    """Return what a tuner proposes after a minute in which all spans came to the same."""
    return tuner.propose(spans(**counted), now, configured)


def tuned(tuner: Tuner, value: object) -> Settings:
    """Return the settings with a knob turned."""
    return tuner.knob.set(SETTINGS, value)


def test_knob_sets_one_setting_and_no_other() -> None:
    """What is tuned lies over what is configured."""
    settings = RoomTuner.knob.set(SETTINGS, 5)

    assert RoomTuner.knob.of(settings) == 5
    assert RoomTuner.knob.set(settings, 64 * MIB) == SETTINGS


# -- the room of L1 ---------------------------------------------------------------------------------------------------


def test_room_grows_by_a_quarter_where_ghosts_promise_hits() -> None:
    """Of 10,000 reads 200 would have been hits with a quarter more: two points."""
    step = proposed(RoomTuner(), more_hits=(200, 300, 400))

    assert step is not None
    assert (step.value, step.expected) == (80 * MIB, 0.02)
    assert step.why == "with 80MiB, 2.0% of the reads would have been hits besides, as ghosts tell"


@pytest.mark.parametrize(
    "counted",
    [
        {"more_hits": (20, 300, 400)},  # too few
        {"more_hits": (200, 300, 400), "reads": 100, "hits": 50},  # too little traffic to tell
        {"more_hits": (200, 300, 400), "flushes": 1},  # L1 was emptied meanwhile
        {"more_hits": (200, 300, 400), "is_serving": False},
    ],
)
def test_room_stays_where_nothing_is_to_be_won(counted: dict[str, Any]) -> None:
    """Memory is not taken for a fraction of a point, nor on a guess."""
    assert proposed(RoomTuner(), **counted) is None


def test_room_ends_at_its_bound() -> None:
    """The last step is as small as the bound makes it, and promises as much less."""
    last = proposed(RoomTuner(), tuned(RoomTuner(), 120 * MIB), l1_bytes=119 * MIB, more_hits=(300, 300, 300))

    assert last is not None
    assert last.value == 128 * MIB
    assert last.expected == pytest.approx(0.03 * (8 / 120) / 0.25)
    assert proposed(RoomTuner(), tuned(RoomTuner(), 128 * MIB), l1_bytes=119 * MIB, more_hits=(300, 300, 300)) is None


def test_room_never_grows_where_more_is_configured_than_the_bound() -> None:
    """An operator who gave L1 a gigabyte and no bound is not tuned to 128 MiB."""
    configured = make_settings(l1__max_bytes="1GiB")

    assert proposed(RoomTuner(), configured, configured, more_hits=(300, 300, 300)) is None


def test_room_that_stands_empty_is_given_back_down_to_what_is_configured() -> None:
    """Steps down are as small as those up; what the operator gave stays."""
    step = proposed(RoomTuner(), tuned(RoomTuner(), 100 * MIB), l1_bytes=40 * MIB)

    assert step is not None
    assert (step.value, step.expected) == (80 * MIB, 0.0)
    assert proposed(RoomTuner(), tuned(RoomTuner(), 70 * MIB), l1_bytes=MIB) == Step(
        64 * MIB, "70MiB are filled to less than 60%", 0.0
    )
    assert proposed(RoomTuner(), SETTINGS, l1_bytes=MIB) is None


def test_room_has_settled_when_it_is_full_or_will_not_be() -> None:
    """A larger L1 shows what it brings once it holds more."""
    now = tuned(RoomTuner(), 80 * MIB)
    full = Span(Moment(0.0, l1_bytes=75 * MIB), Moment(10.0))
    empty = Span(Moment(0.0, l1_bytes=64 * MIB), Moment(10.0, l1_bytes=75 * MIB))

    assert RoomTuner().has_settled(full, 10.0, now)
    assert not RoomTuner().has_settled(empty, 10.0, now)
    assert RoomTuner().has_settled(empty, 300.0, now)


# -- admission --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("admit", "counted", "expected"),
    [
        ("always", {"evictions": 1000, "evictions_unused": 970}, 0.0),
        ("always", {"evictions": 1000, "evictions_unused": 900}, None),  # some of it was of use
        ("always", {"evictions": 10, "evictions_unused": 10}, None),  # too few to tell
        ("second_read", {"refusals": 1000, "returns": 200}, 0.02),
        ("second_read", {"refusals": 1000, "returns": 20}, None),  # who was kept out does not come back
        ("auto", {"evictions": 1000, "evictions_unused": 1000, "refusals": 1000, "returns": 900}, None),
    ],
)
def test_admission_becomes_auto_where_a_fixed_rule_does_badly(
    admit: str, counted: dict[str, Any], expected: float | None
) -> None:
    """The adaptive rule is the tuned one; it is not tuned twice."""
    settings = make_settings(l1__admit=admit)

    step = proposed(AdmissionTuner(), settings, settings, **counted)

    assert step == (None if expected is None else Step("auto", step.why if step is not None else "", expected))


# -- compression ------------------------------------------------------------------------------------------------------


def test_threshold_is_halved_where_smaller_values_shrink() -> None:
    """Of ten times what was tried, half is saved: 400,000 of 4 million bytes written."""
    step = proposed(ThresholdTuner(), written_bytes=4_000_000, small=small())

    assert step is not None
    assert (step.value, step.expected) == (5 << 10, 0.1)
    assert step.why == "values of 5KiB to 10KiB shrink by 50%, in 0.01% of the time"


@pytest.mark.parametrize(
    "counted",
    [
        {"small": small(saved_bytes=1000)},  # they do not shrink
        {"small": small(tried=1)},  # six of them in a minute tell nothing
        {"small": small(seen_bytes=8000, tried_bytes=80_000)},  # hardly any are written
        {"small": small(seconds=0.1)},  # a tenth of the time for a tenth of them
        {"small": Small()},
        {"small": small(), "written_bytes": 100},
    ],
)
def test_threshold_stays_where_it_would_not_pay(counted: dict[str, Any]) -> None:
    """It is no use in bytes, or too dear in time, or nobody can tell."""
    assert proposed(ThresholdTuner(), **{"written_bytes": 4_000_000} | counted) is None


def test_threshold_is_doubled_where_time_does_not_do_for_all() -> None:
    """What is left as it is for want of time may be large, while small ones took the time."""
    step = proposed(ThresholdTuner(), written_bytes=4_000_000, compress_tried=90, out_of_time=10, small=small())

    assert step is not None
    assert (step.value, step.expected) == (20 << 10, 0.0)
    assert proposed(ThresholdTuner(), written_bytes=4_000_000, compress_tried=990, out_of_time=10) is None
    assert proposed(ThresholdTuner(), written_bytes=4_000_000, compress_tried=9, out_of_time=1) is None


def test_threshold_stays_within_its_bounds() -> None:
    """Down to tuning.min_compress_bytes, up to tuning.max_compress_bytes."""
    low, high = tuned(ThresholdTuner(), 1 << 10), tuned(ThresholdTuner(), 64 << 10)

    assert proposed(ThresholdTuner(), low, written_bytes=4_000_000, small=small()) is None
    assert proposed(ThresholdTuner(), high, written_bytes=4_000_000, compress_tried=90, out_of_time=10) is None


def test_small_values_are_tried_now_and_then() -> None:
    """One in some is compressed for nothing; those of less than half the size are not looked at."""
    sealer = make_values(make_engine()).sealer
    values = SmallValues(sealer)
    for _ in range(2 * TRY_EVERY):
        values.see(b"x" * 6000, 10.0)
        values.see(b"x" * 5000, 10.0)

    counted = values.counted

    assert (counted.seen_bytes, counted.tried, counted.tried_bytes) == (2 * TRY_EVERY * 6000, 2, 12_000)
    assert 11_000 < counted.saved_bytes < 12_000


def test_small_values_are_not_tried_when_that_took_its_time() -> None:
    """Looking costs two thousandths of the time at most."""
    clock = iter(range(1_000_000))
    sealer = make_values(make_engine()).sealer
    slow = Sealer(sealer.clock, sealer.dictionaries, lambda: float(next(clock)))  # each takes a second
    values = SmallValues(slow)
    for moment in range(10 * TRY_EVERY):
        values.see(b"x" * 6000, 10.0 + moment / 100)

    assert values.counted.tried == 1


def test_sealer_tells_of_values_that_are_too_small_of_classes_that_compress() -> None:
    """Not of those that are compressed, nor of classes that ask for none, or have a dictionary for small ones."""
    values = make_values(
        make_engine(),
        ClassSettings("c", ("c:*",), compress=True),
        ClassSettings("d", ("d:*",), compress=True, dictionary=True),
        ClassSettings("v", ("v:*",), version=True),
    )
    told: list[int] = []
    values.sealer.on_small = lambda value: told.append(len(value))
    for name in (b"c:1", b"d:1", b"v:1"):
        for size in (9000, 11_000):
            values.sealer.seal(values.rules.find(name), b"x" * size, 1.0, envelopes=True)

    assert told == [9000]
    assert values.sealer.figures.written_bytes == 3 * 20_000


# -- TTLs -------------------------------------------------------------------------------------------------------------

WHOLE = {"adaptive_ttl": "on", "ttl_s": 1800.0, "max_ttl_s": 7200.0}


@pytest.mark.parametrize(
    ("tier", "value", "fields"),
    [
        ("hot", 375.0, WHOLE),
        ("hot", 375.0, {"adaptive_ttl": "on"}),  # the app's own TTL may be long
        ("hot", None, {"adaptive_ttl": "on", "ttl_s": 400.0}),  # half the base is less than ttl.hot already
        ("hot", None, {"adaptive_ttl": "report", "ttl_s": 1800.0}),
        ("cold", 4500.0, WHOLE),
        ("cold", None, {"adaptive_ttl": "on", "ttl_s": 1800.0}),  # without max_ttl, twice the base is the end
        ("cold", None, {"adaptive_ttl": "on", "ttl_s": 1800.0, "max_ttl_s": 3600.0}),  # max_ttl wins
        ("cold", None, {"adaptive_ttl": "on", "ttl_s": 3000.0, "max_ttl_s": 7200.0}),  # twice the base is more
    ],
)
def test_bound_is_lengthened_where_it_ends_keys_that_are_read_again(
    tier: Any, value: float | None, fields: dict[str, Any]
) -> None:
    """200 of 10,000 reads found nothing; a fifth of those a quarter longer would have kept, if it is what ends them."""
    settings = with_class(SETTINGS, **fields)

    step = proposed(BoundTuner(tier), settings, settings, missing=missing(**{tier: 200}))

    assert (None if step is None else step.value) == value
    if step is not None:
        assert step.expected == pytest.approx(0.004)
        assert step.why == f"2.00% of the reads found nothing of a {tier} key that had been read before"


@pytest.mark.parametrize("counted", [{}, {"hot": 4}, {"warm": 500}, {"cold": 500}])
def test_bound_stays_where_keys_of_its_tier_are_not_missed(counted: dict[str, int]) -> None:
    """Others do not end by it."""
    settings = with_class(SETTINGS, **WHOLE)

    assert proposed(BoundTuner("hot"), settings, settings, missing=missing(**counted)) is None


@pytest.mark.parametrize(("reads", "hot"), [(1000, 10), (10_000, 20)])
def test_bound_stays_where_it_is_about_too_few(reads: int, hot: int) -> None:
    """Sixty reads in a minute are no figure; two in a thousand, of which a quarter longer keeps a fifth, no reason."""
    settings = with_class(SETTINGS, **WHOLE)

    assert proposed(BoundTuner("hot"), settings, settings, reads=reads, hits=0, missing=missing(hot=hot)) is None


def test_bound_stays_within_its_factor() -> None:
    """Twice what is configured, and no more."""
    configured = with_class(SETTINGS, **WHOLE)
    tuner = BoundTuner("hot")

    last = proposed(tuner, tuner.knob.set(configured, 550.0), configured, missing=missing(hot=400))

    assert last is not None
    assert last.value == 600.0
    assert proposed(tuner, tuner.knob.set(configured, 600.0), configured, missing=missing(hot=400)) is None


@pytest.mark.parametrize(
    ("counted", "window_s"),
    [
        ({"cold": 990, "hot": 10}, 75.0),
        ({"hot": 990, "cold": 10}, 48.0),
        ({"hot": 300, "warm": 300, "cold": 400}, None),
        ({"cold": 10}, None),  # too few to tell
    ],
)
def test_window_is_changed_until_it_tells_keys_apart(counted: dict[str, int], window_s: float | None) -> None:
    """Longer where nearly all is cold, shorter where nearly all is hot."""
    step = proposed(WindowTuner(), decided=missing(**counted))

    assert (None if step is None else step.value) == window_s


@pytest.mark.parametrize(("window_s", "counted"), [(120.0, {"cold": 1000}), (30.0, {"hot": 1000})])
def test_window_stays_within_its_factor(window_s: float, counted: dict[str, int]) -> None:
    """Twice what is configured, or half."""
    assert proposed(WindowTuner(), tuned(WindowTuner(), window_s), decided=missing(**counted)) is None


def test_tuners_of_ttls_wait_for_as_long_as_their_change_takes() -> None:
    """A TTL shows its effect when values written before it have ended."""
    assert not BoundTuner("hot").has_settled(span(), 299.0, SETTINGS)
    assert BoundTuner("hot").has_settled(span(), 300.0, SETTINGS)
    assert not WindowTuner().has_settled(span(), 59.0, SETTINGS)
    assert WindowTuner().has_settled(span(), 60.0, SETTINGS)
    assert not AdmissionTuner().has_settled(span(), 20.0, SETTINGS)
    assert ThresholdTuner().has_settled(span(), 0.0, SETTINGS)


# -- figures ----------------------------------------------------------------------------------------------------------


def test_figures_of_a_span_are_shares_of_what_happened_in_it() -> None:
    """Each tuner measures what it is judged by."""
    busy = span(
        written_bytes=1_000_000,
        saved_bytes=300_000,
        decided=missing(hot=10, warm=20, cold=70),
        missing=missing(hot=100, cold=100),
    )
    found = [tuner.measure(busy) for tuner in (RoomTuner(), AdmissionTuner(), ThresholdTuner(), BoundTuner("hot"))]

    assert found == [0.5, 0.5, 0.3, 0.98]
    assert WindowTuner().measure(busy) == pytest.approx(0.3)
    assert span(reads=10).found_share is None
    assert span().mixed_share is None


def test_moment_is_what_the_parts_have_counted() -> None:
    """Everything a tuner looks at comes from where it is counted."""
    engine = make_engine()
    values = make_values(engine)
    engine.stats.hits, engine.stats.misses = 3, 4
    engine.l1.admission.evicted(1)
    engine.l1.admission.evicted(2)
    values.sealer.figures.written_bytes = 5
    values.lifetimes.counted.warm = 6

    moment = take_moment(engine, values, small(), missing(hot=7))

    assert (moment.reads, moment.hits, moment.evictions, moment.evictions_unused) == (7, 3, 2, 1)
    assert (moment.written_bytes, moment.decided, moment.missing) == (5, Tiers(0, 6, 0), Tiers(7, 0, 0))
    assert (moment.at, moment.small, moment.is_serving) == (1000.0, small(), True)
