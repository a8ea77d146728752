"""What needs more than one command or one connection goes through Respite as it goes directly, byte for byte."""

from __future__ import annotations

import pytest

from .flow_list import ALL_FLOWS
from .flows import Flow, Run, differences
from .servers import OPTIONAL_KINDS
from .targets import Target

Pair = tuple[Target, Target]


def compare(flow: Flow, pair: Pair) -> list[str]:
    """Run a flow on both targets in each of its protocols and list what differs.

    On the required servers each step is sent whole, on the others cut at random bytes.
    """
    found = []
    for protocol in flow.protocols[:1] if flow.is_raw else flow.protocols:
        is_split = pair[0].server.kind.name in OPTIONAL_KINDS
        direct, proxied = (Run(flow, target, protocol, is_split).transcript() for target in pair)
        found += [f"RESP{protocol} {line}" for line in differences(flow, direct, proxied)]
    return found


@pytest.mark.parametrize("flow", ALL_FLOWS, ids=[flow.name.replace(" ", "-") for flow in ALL_FLOWS])
def test_flow_through_respite_is_as_direct(any_pair: Pair, flow: Flow) -> None:
    """Every frame of every connection of the flow is the same as directly."""
    if reason := flow.why_not(any_pair[0].server.kind):
        pytest.skip(reason)

    found = compare(flow, any_pair)

    assert not found, "\n".join(found)
