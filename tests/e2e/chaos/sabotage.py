"""A Respite with a promise taken out, to see that a run of chaos notices. `clock/sitecustomize.py` asks for it."""

from __future__ import annotations

import proxy.errors


def take_out(rule: str) -> None:
    """Replace what keeps a promise, in this process: before anything of the proxy but its errors is imported."""
    if rule == "promises":
        proxy.errors.UPSTREAM_UNAVAILABLE = b"+OK\r\n"
        return
    from proxy.core.engine import Engine  # noqa: PLC0415 - see above
    from proxy.core.outage.fallbacks import Fallbacks  # noqa: PLC0415
    from proxy.core.slots import Slot  # noqa: PLC0415

    if rule == "pushes":
        Engine.drop_pushed = lambda self, keys: None  # type: ignore[method-assign]
    elif rule == "fallbacks":
        Fallbacks.answer = lambda self, client, spec, args, failure: None  # type: ignore[method-assign]
    else:
        assert rule == "answers"
        Slot.fail = lambda self, failure: None  # type: ignore[method-assign]
