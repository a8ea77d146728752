"""The event service over the life of a broker: lost, frozen, misconfigured, made anew; and what may be missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from proxy.amqp import service as service_module
from proxy.amqp.connection import Connection
from proxy.amqp.families import families
from proxy.amqp.topology import Topology, declare
from proxy.config.endpoint import parse_amqp_url
from proxy.config.model import Amqp, TlsClient
from proxy.events.sink import Gap

from ..e2e.servers import TlsFiles, free_port
from .broker import RabbitMq
from .conftest import Names
from .eventing import FakeSink, event, make_service, now_ms, publisher, running, settings, until


async def test_no_broker_configured_is_off(rabbitmq: RabbitMq, names: Names) -> None:
    """Without a URL there is nothing to do, and the state says so."""
    service = make_service(attrs.evolve(settings(rabbitmq, names), urls=()), FakeSink())

    await service.run()

    assert service.figures.state == "off"


async def test_state_goes_from_off_to_up_and_back(rabbitmq: RabbitMq, names: Names) -> None:
    """While it runs it is up, with the address it speaks to and no password in it."""
    service = make_service(settings(rabbitmq, names), FakeSink())
    assert service.figures.state == "off"
    async with running(service) as figures:
        assert (f"amqp://127.0.0.1:{rabbitmq.port}", "") == (figures.url, figures.why)

    assert service.figures.state == "off"


async def test_broker_not_there_yet_is_waited_for(rabbitmq: RabbitMq, names: Names) -> None:
    """Nodes that do not answer are passed over; one line in the log says so, however often they are tried."""
    amqp = settings(rabbitmq, names)
    dead = [parse_amqp_url(f"amqp://127.0.0.1:{free_port()}") for _ in range(2)]
    with capture_logs() as logs:
        async with running(make_service(attrs.evolve(amqp, urls=tuple(dead)), FakeSink()), is_up=False) as figures:
            await until(lambda: figures.why != "", "it was tried")
            await trio.sleep(1.5)
            assert figures.state == "connecting"
    async with running(make_service(attrs.evolve(amqp, urls=(*dead, *amqp.urls)), FakeSink())) as figures:
        assert figures.url == amqp.urls[0].display

    assert ["no events: the broker is away"] == [line["event"] for line in logs]


async def test_wrong_password_is_misconfigured(rabbitmq: RabbitMq, names: Names) -> None:
    """A broker that does not let us in is said once, as an error, and asked again."""
    amqp = settings(rabbitmq, names, url=rabbitmq.url.replace("guest:guest", "guest:wrong"))
    with capture_logs() as logs:
        async with running(make_service(amqp, FakeSink()), is_up=False) as figures:
            await until(lambda: figures.state == "misconfigured", "it is seen")
            await trio.sleep(1.0)

    assert ["error"] == [line["log_level"] for line in logs]
    assert "wrong" not in str(logs)


async def test_queue_with_other_arguments_is_misconfigured_until_it_is_gone(
    rabbitmq: RabbitMq, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is there with other arguments is named once, as an error; when it is mended events come in."""
    monkeypatch.setitem(service_module._PAUSES_S, service_module.Trouble.TOPOLOGY, (0.1, 0.1))
    sink = FakeSink()
    async with publisher(rabbitmq, names) as broker:
        await broker.channel.declare_queue(names.queue, durable=False)
        with capture_logs() as logs:
            async with running(make_service(settings(rabbitmq, names), sink), is_up=False) as figures:
                await until(lambda: figures.state == "misconfigured", "it is seen")
                await trio.sleep(0.5)
                assert "durable" in figures.why
                await broker.channel.delete_queue(names.queue)
                await until(lambda: figures.state == "up", "it is mended")
                await broker.publish([event("k")])
                await until(lambda: sink.applied[b"k"] == 1, "events come in")

    assert ["error", "info"] == [line["log_level"] for line in logs]
    assert names.queue in logs[0]["why"]


async def test_tls_with_a_client_certificate_comes_up(rabbitmq: RabbitMq, names: Names, broker_tls: TlsFiles) -> None:
    """The certificates of [amqp] tls are used, and without a user the client's says who we are."""
    rabbitmq.allow_external()
    files = (str(broker_tls.ca), str(broker_tls.client_cert), str(broker_tls.client_key))
    tls = TlsClient(*files, verify=True, min_version="1.2")
    amqp = attrs.evolve(settings(rabbitmq, names, url=rabbitmq.external_url), tls=tls)

    async with running(make_service(amqp, FakeSink())) as figures:
        assert figures.state == "up"


async def test_tls_files_that_cannot_be_read_are_misconfigured(rabbitmq: RabbitMq, names: Names) -> None:
    """A wrong path in [amqp] tls is said, and ends nothing."""
    amqp = settings(rabbitmq, names, url="amqps://localhost")
    amqp = attrs.evolve(amqp, tls=TlsClient("/nowhere.pem", "", "", verify=True, min_version="1.2"))
    async with running(make_service(amqp, FakeSink()), is_up=False) as figures:
        await until(lambda: figures.state == "misconfigured", "it is seen")

        assert "amqp.tls" in figures.why


async def test_connection_closed_by_the_broker_comes_back(rabbitmq: RabbitMq, names: Names) -> None:
    """An operator who closes the connection sees it again at once; a durable queue makes that no gap."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures:
        await trio.to_thread.run_sync(rabbitmq.close_connections)
        await until(lambda: figures.reconnects == 1 and figures.state == "up", "it is back", timeout_s=3.0)
        async with publisher(rabbitmq, names) as broker:
            await broker.publish([event("k")])
        await until(lambda: sink.applied[b"k"] == 1, "events come in")

    assert not sink.flushed


async def test_frozen_broker_is_seen_and_left(rabbitmq_own: RabbitMq, names: Names) -> None:
    """A broker that keeps the connection and says nothing is given up after two heartbeats, and found again."""
    async with running(make_service(settings(rabbitmq_own, names), FakeSink())) as figures:
        rabbitmq_own.freeze()
        await until(lambda: figures.state == "connecting", "it is seen", timeout_s=7.0)
        rabbitmq_own.thaw()
        await until(lambda: figures.state == "up", "it is back", timeout_s=10.0)


async def test_broker_lost_while_events_are_held_does_not_stay_so(rabbitmq_own: RabbitMq, names: Names) -> None:
    """While Redis is away and events wait for it, the loss of the broker is seen as well, and mended."""
    sink = FakeSink()
    sink.leave()
    async with running(make_service(settings(rabbitmq_own, names), sink)) as figures:
        async with publisher(rabbitmq_own, names) as broker:
            await broker.publish([event("k")])
        await until(lambda: figures.waiting() == 1, "it is held")
        await trio.to_thread.run_sync(rabbitmq_own.restart)
        await until(lambda: figures.reconnects == 1, "the broker is back", timeout_s=5.0)
        sink.come_back()
        await until(lambda: sink.applied[b"k"] == 1, "the event came again")
        await until(lambda: figures.waiting() == 0, "and is done")


async def test_queue_made_anew_is_flushed(rabbitmq: RabbitMq, names: Names) -> None:
    """A queue that was deleted with what was in it: it is declared again, and everything is flushed, once."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await until(lambda: names.queue in sink.known, "the queue is known")
        assert not sink.flushed
        await broker.channel.delete_queue(names.queue)
        await until(lambda: len(sink.flushed) == 1, "it is flushed", timeout_s=3.0)
        await broker.publish([event("k")])
        await until(lambda: sink.applied[b"k"] == 1, "events come in")

    assert sink.flushed[0][0] is None
    assert 1 == figures.flushes


async def test_queue_gone_while_no_proxy_ran_is_flushed(rabbitmq: RabbitMq, names: Names) -> None:
    """A queue that Redis remembers and the broker does not means lost events, for a proxy that starts as well."""
    sink = FakeSink()
    sink.known.add(names.queue)
    sink.can_flush = False
    async with running(make_service(settings(rabbitmq, names), sink)) as figures:
        await until(lambda: figures.owed == 1, "the flush is owed")
        await trio.sleep(1.0)
        sink.can_flush = True
        await until(lambda: figures.flushes == 1, "it is tried until it works")

    assert [None] == [globs for globs, _ in sink.flushed]
    assert figures.owed == 0


async def test_queue_is_noted_as_gone_before_it_is_made(rabbitmq: RabbitMq, names: Names) -> None:
    """So that a proxy that is killed right then leaves the flush to another; noted later, where nobody can be told."""
    sink = FakeSink()
    sink.known.add(names.queue)
    sink.can_note = False
    async with running(make_service(settings(rabbitmq, names), sink)) as figures:
        await trio.sleep(0.7)
        assert (sink.lost, figures.owed) == (set(), 0)
        sink.can_note = True
        await until(lambda: figures.flushes == 1, "it is flushed")

    assert not sink.lost


async def test_lost_queue_is_not_flushed_before_it_is_there_again(
    rabbitmq: RabbitMq, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published until then is lost, too; making it may take a while."""
    monkeypatch.setattr(service_module, "OTHERS_FLUSH_S", 0.2)
    sink = FakeSink()
    before: list[int] = []

    async def declare_slowly(
        connection: Connection, amqp: Amqp, topology: Topology, before_making: Callable[[], Awaitable[None]]
    ) -> None:
        async def wait() -> None:
            await before_making()
            await trio.sleep(1.2)
            before.append(len(sink.flushed))

        await declare(connection, amqp, topology, wait)

    async with running(make_service(settings(rabbitmq, names), sink)), publisher(rabbitmq, names) as broker:
        await until(lambda: names.queue in sink.known, "the queue is known")
        monkeypatch.setattr(service_module, "declare", declare_slowly)
        await broker.channel.delete_queue(names.queue)
        await until(lambda: len(sink.flushed) == 1, "it is flushed")

    assert (before, sink.lost) == ([0], set())


@pytest.mark.parametrize("is_made_anew", [True, False])
async def test_exchange_deleted_is_bound_again(rabbitmq: RabbitMq, names: Names, *, is_made_anew: bool) -> None:
    """With an exchange its bindings go, and nobody is told: events come again, and what is seen missing is flushed."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        gone = f'rabbit_misc:r(<<"/">>, exchange, <<"{names.exchange}">>)'
        rabbitmq.evaluate(f'rabbit_exchange:delete({gone}, false, <<"tests">>)')
        if is_made_anew:
            await broker.channel.declare_exchange(names.exchange)
        else:
            await until(lambda: len(sink.flushed) == 1, "it is flushed")
            await until(lambda: figures.state == "up", "it is up again")
        with trio.fail_after(10):
            while not sink.applied:
                await broker.publish([event("k")])
                await trio.sleep(0.1)


async def test_flush_that_another_proxy_owes_is_done_in_its_place(
    rabbitmq: RabbitMq, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed after it had made the queue: whoever serves it flushes, not at once, and once."""
    monkeypatch.setattr(service_module, "OTHERS_FLUSH_S", 0.8)
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures:
        await until(lambda: names.queue in sink.known, "the queue is known")
        sink.lost.add(names.queue)
        began = trio.current_time()
        await until(lambda: figures.flushes == 1, "it is flushed")
        assert trio.current_time() - began > 0.7
        await trio.sleep(1.2)

    assert (len(sink.flushed), sink.lost) == (1, set())


async def test_queue_that_is_there_is_remembered_and_not_flushed(rabbitmq: RabbitMq, names: Names) -> None:
    """A queue with a past is no gap, whatever Redis remembers."""
    sink = FakeSink()
    for _ in range(2):
        async with running(make_service(settings(rabbitmq, names), sink)):
            await until(lambda: names.queue in sink.known, "it is remembered")
            await trio.sleep(0.1)

    assert not sink.flushed


async def test_hole_flushes_the_scope_of_its_publisher(rabbitmq: RabbitMq, names: Names) -> None:
    """Missing events of a publisher with a scope flush that, of another everything; each is counted."""
    sink = FakeSink()
    scopes = (("api-*", ("ticket:*", "list:*")), ("api-1", ("never:*",)))
    async with running(make_service(settings(rabbitmq, names, scopes=scopes), sink)) as figures:
        sink.holes = [Gap("api-1", 3, 5)]
        await until(lambda: figures.flushes == 1, "the scope is flushed")
        sink.holes = [Gap("other", 1, 1), Gap("another", 1, 1)]
        await until(lambda: None in [globs for globs, _ in sink.flushed], "everything is flushed")

    assert ("ticket:*", "list:*") == sink.flushed[0][0]
    assert figures.gaps == 3


async def test_holes_are_looked_for_while_the_broker_is_away(rabbitmq: RabbitMq, names: Names) -> None:
    """A hole that was noted before the broker went is flushed all the same."""
    sink = FakeSink()
    sink.holes = [Gap("p", 1, 1)]
    amqp = settings(rabbitmq, names, url=f"amqp://127.0.0.1:{free_port()}")
    async with running(make_service(amqp, sink), is_up=False) as figures:
        await until(lambda: figures.flushes == 1, "it is flushed", timeout_s=3.0)


async def test_sink_that_breaks_in_the_search_for_gaps_is_asked_again(rabbitmq: RabbitMq, names: Names) -> None:
    """An error in the search for gaps is said once and ends neither the search nor the events."""

    class Breaking(FakeSink):
        is_broken = True

        async def take_holes(self) -> list[Gap]:
            if self.is_broken:
                raise ValueError("odd")
            return await super().take_holes()

    sink = Breaking()
    with capture_logs() as logs:
        async with running(make_service(settings(rabbitmq, names), sink)) as figures:
            await trio.sleep(2.5)
            sink.is_broken = False
            sink.holes = [Gap("p", 1, 1)]
            await until(lambda: figures.flushes == 1, "it goes on")

    assert 1 == sum(line["event"] == "gaps cannot be looked for" for line in logs)


async def test_broadcast_reaches_every_proxy(rabbitmq: RabbitMq, names: Names) -> None:
    """Each proxy gets each event, and retries of its own; when it ends its queues are gone."""
    sinks = [FakeSink(), FakeSink()]
    amqp = settings(rabbitmq, names, delivery="broadcast")
    async with running(make_service(amqp, sinks[0])), running(make_service(amqp, sinks[1])):
        async with publisher(rabbitmq, names) as broker:
            await broker.publish([event(f"k{n}") for n in range(50)])
        await until(lambda: all(len(sink.applied) == 50 for sink in sinks), "both have all")

    await until(lambda: f"{names.queue}." not in rabbitmq.ctl("list_queues", "name"), "the queues are gone")


async def test_shared_reaches_one_proxy(rabbitmq: RabbitMq, names: Names) -> None:
    """Each event goes to one of the proxies that share the queue."""
    sinks = [FakeSink(), FakeSink()]
    amqp = settings(rabbitmq, names, prefetch=10)
    for sink in sinks:
        sink.delay_s = 0.01
    async with running(make_service(amqp, sinks[0])), running(make_service(amqp, sinks[1])):
        async with publisher(rabbitmq, names) as broker:
            await broker.publish([event(f"k{n}") for n in range(200)])
        await until(lambda: sum(len(sink.applied) for sink in sinks) == 200, "all are applied")

    assert 200 == sum(sum(sink.applied.values()) for sink in sinks)
    assert all(sink.applied for sink in sinks)


async def test_broadcast_connected_is_flushed(rabbitmq: RabbitMq, names: Names) -> None:
    """Before a proxy had its queue it may have missed anything: when it starts, and after each loss."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names, delivery="broadcast"), sink)):
        await until(lambda: len(sink.flushed) == 1, "it is flushed", timeout_s=3.0)
        await trio.to_thread.run_sync(rabbitmq.close_connections)
        await until(lambda: len(sink.flushed) == 2, "it is flushed again", timeout_s=3.0)

    assert [None, None] == [globs for globs, _ in sink.flushed]


async def test_events_that_do_not_last_make_a_reconnect_a_gap(rabbitmq: RabbitMq, names: Names) -> None:
    """Who publishes with delivery mode 1 may lose events with the broker: after a loss everything is flushed."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures:
        async with publisher(rabbitmq, names) as broker:
            await broker.publish([event("k")], delivery_mode=1)
        await until(lambda: figures.applied == 1, "it is applied")
        await trio.to_thread.run_sync(rabbitmq.close_connections)
        await until(lambda: len(sink.flushed) == 1, "it is flushed", timeout_s=3.0)


async def test_depths_are_shown(rabbitmq: RabbitMq, names: Names) -> None:
    """What waits in the queue and among the dead letters shows within a second, and as metrics."""
    sink = FakeSink()
    sink.leave()
    service = make_service(settings(rabbitmq, names, prefetch=2), sink)
    async with running(service) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([b"garbage"])
        await until(lambda: figures.dead == 1, "it is buried")
        await broker.publish([event(f"k{n}") for n in range(12)])
        await until(lambda: figures.depth == 10, "the depth shows", timeout_s=3.0)
        await until(lambda: figures.dead_depth == 1, "and that of the dead letters", timeout_s=3.0)
        report = figures.report(now_ms(), trio.current_time())
        shown = {family.name: family.samples[0].value for family in families(figures, now_ms=now_ms(), now=0.0)}

    assert (10, 1, 1, 1) == tuple(report[name] for name in ("depth", "dead_depth", "consumers", "under_way"))
    assert (10, 1, 1) == tuple(shown[f"respite_events_{name}"] for name in ("queue_depth", "dead_letters", "up"))
    assert figures.depth is None
