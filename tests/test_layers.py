"""The layers of `proxy/`: imports point one way, and the outside world is touched in the outer layers only.

    errors, log <- {config, wire} <- {values, tls} <- {cache, events} <- core
        <- {net, amqp, admin, otel, embedded} <- {outlook, broker} <- app <- supervisor <- cli

Everything up to and with core is plain synchronous Python that is handed `now`: no socket, no clock, no event loop.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[1]

# Lower is further left. Layers of one rank are siblings and do not know each other.
RANKS = {
    "proxy": 0,
    "errors": 0,
    "log": 1,
    "config": 2,
    "wire": 2,
    "tls": 3,
    "values": 3,
    "cache": 4,
    "events": 4,
    "core": 5,
    "net": 6,
    "amqp": 6,
    "admin": 6,
    "otel": 6,
    "embedded": 6,
    "outlook": 7,
    "broker": 7,
    "app": 8,
    "supervisor": 9,
    "cli": 10,
    "__main__": 11,
}
OUTSIDE_WORLD = {
    *("asyncio", "http", "multiprocessing", "select", "selectors", "signal", "socket", "socketserver", "ssl"),
    *("subprocess", "threading", "time", "trio", "urllib.request"),
}
DYNAMIC = "importlib.import_module"
EVERYTHING = frozenset(OUTSIDE_WORLD)
MAY_TOUCH = {
    **dict.fromkeys(("net", "amqp", "admin", "otel", "outlook", "broker", "app", "supervisor"), EVERYTHING),
    # Reads certificates.
    "tls": frozenset({"ssl"}),
    # Runs a server as a child: starts it, waits until it answers, stops it.
    "embedded": frozenset({"signal", "socket", "subprocess", "threading", "time"}),
    # Asks a running proxy over HTTP, and redraws once a second.
    "cli": frozenset({"http", "time", "urllib.request"}),
}


@attrs.frozen
class Import:
    """One imported module, as written in one line."""

    line: int
    module: str


def imports_of(source: str) -> Iterator[Import]:
    """Yield every import of a module, also those inside functions and under TYPE_CHECKING; "" is a relative one."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (Import(node.lineno, name.name) for name in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield Import(node.lineno, module)
                # `from proxy import net` and `from urllib import request` name a module in the second half.
                yield from (Import(node.lineno, f"{module}.{name.name}") for name in names)
            case ast.ImportFrom():
                yield Import(node.lineno, "")
            case ast.Call(func=ast.Name(id="__import__")) | ast.Call(func=ast.Attribute(attr="import_module")):
                yield Import(node.lineno, DYNAMIC)


def layer_of(module: str) -> str:
    """Say which layer a module of ours belongs to: the second part of its dotted name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANKS else "proxy"


def faults_of(module: str, source: str) -> list[str]:
    """List what a module imports and must not."""
    layer = layer_of(module)
    faults = []
    for one in imports_of(source):
        if one.module == "":
            faults.append(f"{module}:{one.line}: a relative import; write the whole name")
        elif one.module == DYNAMIC:
            faults.append(f"{module}:{one.line}: an import that cannot be read from the source")
        elif one.module.partition(".")[0] == "proxy":
            other = layer_of(one.module)
            if other != layer and RANKS[other] >= RANKS[layer]:
                faults.append(f"{module}:{one.line}: {layer} imports {other}")
        else:
            touched = {one.module, one.module.partition(".")[0]} & OUTSIDE_WORLD
            if touched - MAY_TOUCH.get(layer, frozenset()):
                faults.append(f"{module}:{one.line}: {layer} imports {one.module}")
    return faults


def modules() -> dict[str, Path]:
    """Find every module of proxy/ by its dotted name."""
    found = {}
    for path in sorted((ROOT / "proxy").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.mark.parametrize("module", modules())
def test_module_imports_point_left_and_stay_inside(module: str) -> None:
    """No arrow points back, and no inner layer knows sockets, clocks or trio."""
    assert faults_of(module, modules()[module].read_text(encoding="utf-8")) == []


def test_every_module_belongs_to_a_layer() -> None:
    """A new folder or file at the top of proxy/ is given its place in the table first."""
    assert {name.split(".")[1] for name in modules() if "." in name} <= RANKS.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("proxy.wire.reply", "import trio"),
        ("proxy.wire.reply", "from time import monotonic"),
        ("proxy.core.engine", "def f() -> None:\n    import socket"),
        ("proxy.core.engine", "from trio.lowlevel import checkpoint"),
        ("proxy.config.load", "import urllib.request"),
        ("proxy.config.load", "from urllib import request"),
        ("proxy.cli.main", "import trio"),
        ("proxy.log", "import time"),
        ("proxy.cache.l1", "from proxy.core import engine"),
        ("proxy.cache.l1", "from proxy import net"),
        ("proxy.cache.l1", "import proxy.app"),
        (
            "proxy.cache.l1",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from proxy.net.clients.client import Client",
        ),
        ("proxy.wire.reply", "from proxy.config.model import Settings"),
        ("proxy.net.clients.client", "import proxy.admin.http"),
        ("proxy.errors", "import proxy.log"),
        ("proxy.core.engine", "from . import session"),
        ("proxy.core.engine", "from ..net import client"),
        ("proxy.core.engine", "from importlib import import_module"),
        ("proxy.core.engine", "loader.import_module('proxy.net')"),
        ("proxy.core.engine", "__import__('trio')"),
    ],
)
def test_faults_of_wrong_import_are_found(module: str, source: str) -> None:
    """The checker sees each way to cross a border; without this, the test above could pass by being blind."""
    assert len(faults_of(module, source)) >= 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "proxy.net.clients.client",
            "import socket, trio, time\nfrom proxy.core.engine import Engine\nfrom proxy.net import tls",
        ),
        ("proxy.core.engine", "from proxy import __version__\nfrom proxy.wire import reply\nimport heapq"),
        ("proxy.config.endpoint", "from urllib.parse import urlsplit"),
        ("proxy.embedded", "import subprocess, socket, time\nimport importlib.util"),
        ("proxy.cli.main", "import proxy.app\nfrom http.client import HTTPConnection"),
        ("proxy.__main__", "from proxy.cli.main import main"),
    ],
)
def test_faults_of_right_import_are_none(module: str, source: str) -> None:
    """The checker leaves alone what the layers allow."""
    assert faults_of(module, source) == []
