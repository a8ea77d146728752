"""Each lease rule of the design holds in a scene where it matters, and the scene goes wrong without the rule.

The worker is whole and real, Redis is a model, time and order are the scene's (`world.py`).
"""

from __future__ import annotations

import attrs
import pytest

from proxy.cache.flights import Flights
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.fill_slots import JoinSlot
from proxy.core.tracking import Tracking
from proxy.net.links.link import Link

from . import lease_scenarios_fill as fill
from . import lease_scenarios_scope as scope
from . import lease_switches as off
from .lease_rule import Rule, do_nothing, replace
from .world import make_settings, running_world

RULES = (
    Rule("1", fill.write_lands_before_the_fill, off.land_revoked),
    Rule("1", fill.reader_joins_after_the_expiry, replace(JoinSlot, "answer", off.answer_joiners_anyway)),
    Rule("1", fill.value_arrives_before_its_pttl, off.answer_joiners_early),
    Rule("1", fill.key_expires_between_value_and_pttl, replace(Engine, "finish", off.believe_contradictions)),
    Rule("1", fill.mget_finds_a_list, replace(Engine, "finish", off.believe_contradictions)),
    Rule("2", fill.push_comes_for_what_is_held, do_nothing(Engine, "drop_pushed")),
    Rule("2", fill.push_comes_for_a_missing_key, do_nothing(Engine, "drop_pushed")),
    Rule("2", fill.push_comes_before_the_fill, do_nothing(Flights, "revoke_key")),
    Rule("2", fill.null_push_ends_what_is_held, off.ignore_null_pushes),
    Rule("2", fill.null_push_comes_before_the_fill, do_nothing(Flights, "revoke_all")),
    Rule("3", fill.own_write_ends_what_is_held, replace(Engine, "begin_write", off.begin_without_drop)),
    Rule(
        "3",
        fill.fill_is_published_while_a_write_is_in_flight,
        replace(Engine, "end_write", off.end_without_drop),
        given=off.lease_always,
    ),
    Rule(
        "3",
        fill.fill_is_published_while_a_write_is_in_flight,
        off.lease_always,
        given=replace(Engine, "end_write", off.end_without_drop),
    ),
    Rule("3", fill.other_link_reads_while_a_write_is_in_flight, off.lease_always),
    Rule("3", fill.write_names_no_key, off.know_no_unknown_writes),
    Rule("3", fill.databases_are_swapped, off.know_no_unknown_writes),
    Rule("3", fill.databases_are_swapped_by_a_stranger, off.hold_for_ever, settings=make_settings(max_age_s=1.5)),
    Rule("4", fill.key_expires_unannounced, off.finish_with(off.find_no_expiry)),
    Rule("4", fill.pttl_takes_long_to_arrive, off.finish_with(off.count_from_arrival)),
    Rule("5", scope.key_is_written_in_another_database, replace(Engine, "drop", off.drop_in_one_database)),
    Rule("6", fill.own_command_writes_unseen, off.ask_for_noloop),
    Rule("6", fill.own_write_is_overtaken_by_a_stranger, off.fill_from_writes),
    Rule("7", scope.invalidation_link_falls_silent, do_nothing(Engine, "suspend")),
    Rule("7", scope.invalidation_link_is_lost, replace(Tracking, "lose", off.lose_without_flush)),
    Rule("7", scope.invalidation_link_is_lost_under_a_flight, do_nothing(Flights, "revoke_all")),
    Rule("7", scope.data_link_is_lost, do_nothing(Engine, "flush_namespace")),
    Rule("7", scope.link_is_read_from_before_it_is_tracked, off.lease_before_the_acknowledgement),
    Rule("7", scope.redirection_breaks, replace(Link, "on_push", off.take_pushes_for_replies)),
    Rule("8", fill.reply_changes_with_time, off.list_pttl),
    Rule("9", scope.databases_hold_different_values, replace(L1, "namespace", off.share_a_namespace)),
    Rule("9", scope.protocols_have_different_nils, replace(L1, "namespace", off.share_a_namespace)),
    Rule("9", scope.user_may_not_read, replace(L1, "namespace", off.share_a_namespace)),
    Rule("9", scope.user_may_read_no_longer, do_nothing(Engine, "flush")),
    Rule("10", scope.read_between_watch_and_exec, off.serve_the_pinned),
    Rule("10", scope.read_between_queued_and_exec, off.forget_what_is_queued("queued_keys", list)),
    Rule("10", scope.read_in_a_transaction_of_unknown_keys, off.forget_what_is_queued("queued_all", bool)),
    Rule("11", scope.pong_arrives_late, off.count_from_the_pong),
)


@pytest.mark.parametrize("rule", RULES, ids=[rule.id for rule in RULES])
def test_lease_rule_holds_and_is_missed_when_switched_off(rule: Rule) -> None:
    """With the rule nothing is wrong in the scene; with one method replaced that makes the rule, something is."""
    found = []
    for switches in ([rule.given], [rule.given, rule.off]):
        with pytest.MonkeyPatch.context() as monkeypatch:
            for switch in switches:
                switch(monkeypatch)
            with running_world(rule.settings) as world:
                found.append(rule.scenario(world))

    assert not found[0], f"rule {rule.number} is broken: {found[0]}"
    assert found[1], f"rule {rule.number} was switched off, and nothing went wrong"


@pytest.mark.parametrize("rule", RULES, ids=[rule.id for rule in RULES])
def test_lease_rule_holds_in_broadcast_mode_too(rule: Rule) -> None:
    """However the server is asked to track, nothing is wrong in the scene."""
    l1 = attrs.evolve(rule.settings.l1, tracking="broadcast")
    with running_world(attrs.evolve(rule.settings, l1=l1)) as world:
        found = rule.scenario(world)

    assert not found, f"rule {rule.number} is broken: {found}"
