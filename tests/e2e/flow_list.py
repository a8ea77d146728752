"""All flows in one list, and the commands they speak."""

from __future__ import annotations

from functools import cache

from . import flows_connection, flows_protocol, flows_pubsub, flows_state
from .flows import Flow, commands_of

ALL_FLOWS: tuple[Flow, ...] = (
    *flows_connection.FLOWS,
    *flows_pubsub.FLOWS,
    *flows_state.TRANSACTIONS,
    *flows_state.BLOCKING,
    *flows_state.SCRIPTS,
    *flows_protocol.FLOWS,
)


@cache
def spoken_commands() -> frozenset[str]:
    """Name every command that some flow speaks."""
    return frozenset(name for flow in ALL_FLOWS for name in commands_of(flow))
