"""What the parent makes of its workers' answers; the workers are scripted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import attrs
import pytest
import structlog
import trio

from proxy.config.load import default_settings
from proxy.config.model import Settings
from proxy.core.figures.merge import Figures
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.core.session import Filters
from proxy.errors import ConfigError, Problem, RemoteError
from proxy.events.event import Event
from proxy.log import configure
from proxy.supervisor.channel import Channel, NoAnswerError
from proxy.supervisor.fleet import Child, Fleet
from proxy.supervisor.host import Host


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    configure("debug", "text")
    yield
    structlog.reset_defaults()


class ScriptedChannel:
    """Answers with what the test put in; what is missing is no answer."""

    def __init__(self, **answers: object) -> None:
        self.answers: dict[str, object] = answers
        self.asked: list[tuple[str, tuple[object, ...]]] = []
        self.on_ask: Callable[[], None] = lambda: None

    async def ask(self, name: str, *arguments: object) -> object:
        """Note the question and answer it."""
        self.asked.append((name, arguments))
        self.on_ask()
        await trio.lowlevel.checkpoint()
        if name == "report" and isinstance(figures := self.answers.get("figures"), Figures):
            return attrs.evolve(figures, families=())
        if name not in self.answers:
            raise NoAnswerError("it is silent")
        return self.answers[name]


@attrs.define
class Scripted:
    """A host of two workers, and what they were asked."""

    host: Host
    channels: list[ScriptedChannel]
    settings: list[Settings | ConfigError]


def _figures(index: int, commands: int) -> Figures:
    report = {"uptime_s": 5.0, "clients": {"connected": index + 1}, "commands": {"total": commands, "per_second": 0.0}}
    family = MetricFamily("respite_commands", "counter", "C.", (Sample("_total", {}, commands),))
    return Figures(index, report, (family,))


@pytest.fixture
async def scripted() -> Scripted:
    """Make a host whose workers answer nothing yet."""
    settings: list[Settings | ConfigError] = [_with_workers(default_settings(), 2)]

    def read() -> Settings:
        if isinstance(settings[-1], ConfigError):
            raise settings[-1]
        return settings[-1]

    host = Host(read(), read)
    host.fleet = Fleet(2, cast("Any", None), {}, tuple)
    channels = [ScriptedChannel(), ScriptedChannel()]
    for seat, channel in zip(host.fleet.seats, channels, strict=True):
        seat.child = _child(100 + seat.index, channel)
    return Scripted(host, channels, settings)


def _with_workers(settings: Settings, count: int) -> Settings:
    return attrs.evolve(settings, listen=attrs.evolve(settings.listen, workers=count))


def _child(pid: int, channel: ScriptedChannel) -> Child:
    process = cast("subprocess.Popen[bytes]", None)
    return Child(pid, cast("Channel", channel), process, urls=["redis://127.0.0.1:1"])


async def _total(host: Host) -> tuple[int, float]:
    """Return the sum of commands as JSON and Prometheus have it."""
    families = {family.name: family for family in await host.families()}
    return (await host.stats())["commands"]["total"], families["respite_commands"].samples[0].value


async def test_stats_have_a_row_for_each_worker_whatever_its_state(scripted: Scripted) -> None:
    """A worker that serves, is silent, is starting or is not there has its row; only the first has figures in it."""
    scripted.channels[0].answers["figures"] = _figures(0, 10)
    rows = (await scripted.host.stats())["workers"]
    assert rows == [
        {"index": 0, "pid": 100, "state": "serving", "uptime_s": 5.0, "restarts": 0, "clients": 1},
        {"index": 1, "pid": 101, "state": "silent", "uptime_s": 0.0, "restarts": 0, "clients": 0},
    ]

    first, second = scripted.host.fleet.seats
    assert first.child is not None
    first.child.urls = None
    second.child = None
    second.restarts = 3
    rows = (await scripted.host.stats())["workers"]
    assert [(row["state"], row["pid"], row["restarts"]) for row in rows] == [
        ("starting", 100, 0),
        ("starting", None, 3),
    ]


async def test_counters_never_go_back_when_a_worker_is_silent(scripted: Scripted) -> None:
    """What it had counted when it was last heard stands, once, until it is heard again."""
    for index, channel in enumerate(scripted.channels):
        channel.answers["figures"] = _figures(index, 10 + index)
    assert await _total(scripted.host) == (21, 21)

    del scripted.channels[1].answers["figures"]
    assert await _total(scripted.host) == (21, 21)

    scripted.channels[1].answers["figures"] = _figures(1, 50)
    assert await _total(scripted.host) == (60, 60)


async def test_figures_of_a_worker_that_is_replaced_meanwhile_are_not_counted_twice(scripted: Scripted) -> None:
    """It has gone into what the seat keeps; its answer, still on the way, is no second worker's."""
    first, second = scripted.host.fleet.seats
    for index, channel in enumerate(scripted.channels):
        channel.answers["figures"] = _figures(index, 10)
    new = _child(102, ScriptedChannel())

    def replace() -> None:
        second.retired, second.child = _figures(1, 10), new

    scripted.channels[0].on_ask = replace

    assert first.child is not None
    assert (await scripted.host.stats())["commands"]["total"] == 20


async def test_ready_is_what_all_say_who_run(scripted: Scripted) -> None:
    """One that cannot serve makes the host not ready; one that is away only shows; none is not ready; so is a drain."""
    one, other = scripted.channels
    one.answers["ready"] = other.answers["ready"] = (True, "serving")
    assert await scripted.host.ready() == (True, "serving")

    other.answers["ready"] = (False, "upstream away")
    assert await scripted.host.ready() == (False, "upstream away")

    del other.answers["ready"]
    assert await scripted.host.ready() == (True, "serving, 1 of 2 workers away")

    del one.answers["ready"]
    assert await scripted.host.ready() == (False, "no worker runs")

    scripted.host.drain()
    assert await scripted.host.ready() == (False, "draining")


async def test_reload_gives_every_worker_its_share_also_one_that_starts(scripted: Scripted) -> None:
    """Each gets its own part; who does not take it is named in the answer."""
    old = scripted.settings[0]
    assert isinstance(old, Settings)
    scripted.settings.append(attrs.evolve(old, l1=attrs.evolve(old.l1, max_bytes=1001)))
    for channel in scripted.channels:
        channel.answers["apply"] = None
    starting = scripted.host.fleet.seats[1].child
    assert starting is not None
    starting.urls = None

    assert await scripted.host.reload() == {"applied": ["l1.max_bytes"], "needs_restart": [], "problems": []}

    given = [channel.asked[-1] for channel in scripted.channels]
    assert [(name, settings.l1.max_bytes) for name, (settings,) in cast("Any", given)] == [
        ("apply", 501),
        ("apply", 500),
    ]
    del scripted.channels[0].answers["apply"]
    answer = await scripted.host.reload()
    assert answer["problems"] == ["worker 0 has not applied it: it is silent"]
    assert answer["partly"]


async def test_reload_of_a_wrong_file_asks_nobody(scripted: Scripted) -> None:
    """The old settings stay, here and everywhere."""
    before = scripted.host.settings
    scripted.settings.append(ConfigError((Problem("l1.max_bytes", "x", "a size"),)))

    answer = await scripted.host.reload()

    assert answer == {"applied": [], "needs_restart": [], "problems": ["l1.max_bytes = x: a size"]}
    assert scripted.host.settings is before
    assert [channel.asked for channel in scripted.channels] == [[], []]


async def test_questions_of_clients_are_answered_for_all(scripted: Scripted) -> None:
    """Lines in order of ids, numbers added up, the one link that is held somewhere; nothing where nobody answers."""
    one, other = scripted.channels
    one.answers |= {"lines": [(3, "id=3"), (11, "id=11")], "kill": 2, "clear_l1": 5, "upstream_id": 0, "pause": None}
    other.answers |= {"lines": [(4, "id=4")], "kill": 1, "clear_l1": 6, "upstream_id": 77, "pause": None}
    host = scripted.host

    assert await host.lines(Filters()) == ["id=3", "id=4", "id=11"]
    assert await host.kill(Filters(kind="normal"), 3) == 3
    assert await host.clear_l1() == 11
    assert await host.upstream_id(4) == 77
    await host.pause(0.5)
    assert one.asked == other.asked
    assert ("kill", (Filters(kind="normal"), 3)) in one.asked
    assert host.handlers().keys() >= {"lines", "kill", "clear_l1", "upstream_id", "pause", "stats", "explain", "reload"}

    one.answers, other.answers = {}, {}
    assert (await host.lines(Filters()), await host.upstream_id(4)) == ([], 0)


def test_parent_is_not_imported_by_one_worker() -> None:
    """One worker needs no parent: nothing of it is loaded."""
    script = "import sys, proxy.app; print([name for name in sys.modules if name.startswith('proxy.supervisor')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=20)

    assert done.stdout.decode().strip() == "[]"


async def test_invalidate_is_asked_of_one_worker_that_can(scripted: Scripted) -> None:
    """The first that does it is enough; one that is silent or starting is passed over; none at all is an error."""
    event = Event((b"k",))
    one, other = scripted.channels
    one.answers["invalidate"] = {"keys": 1, "entries": 1, "fences": 0}
    assert await scripted.host.invalidate(event) == {"keys": 1, "entries": 1, "fences": 0}
    assert (one.asked, other.asked) == ([("invalidate", (event,))], [])

    del one.answers["invalidate"]
    other.answers["invalidate"] = {"keys": 0, "entries": 0, "fences": 0}
    assert await scripted.host.invalidate(event) == {"keys": 0, "entries": 0, "fences": 0}

    child = scripted.host.fleet.seats[1].child
    assert child is not None
    child.urls = None
    with pytest.raises(RemoteError, match="it is silent"):
        await scripted.host.invalidate(event)
    scripted.host.fleet.seats[0].child = None
    with pytest.raises(RemoteError, match="no worker runs"):
        await scripted.host.invalidate(event)
