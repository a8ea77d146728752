"""A headless Chromium for the tests, driven over its own debugging protocol.

Owns the process and its profile, both thrown away in the end. A `Page` has storage of its own and keeps every error
that its console saw. Nothing here knows Respite. Source: Chrome DevTools Protocol.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import attrs
from websockets.sync.client import ClientConnection, connect

from .servers import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--mute-audio",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 20.0

Scheme = Literal["light", "dark"]


class PageError(Exception):
    """A script in the page failed; the text is what the page said."""


def find_chromium() -> str | None:
    """Find a Chromium on the PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One running Chromium."""

    def __init__(self, path: str) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="respite-chromium-"))
        self._process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it is many processes: all of them end together
        )
        self._number = 0
        self._events: dict[str, list[tuple[str, Any]]] = {}
        port_file = self._profile / "DevToolsActivePort"
        try:
            wait_for(lambda: self._says_where(port_file), what="Chromium listens", timeout_s=START_TIMEOUT_S)
            port, way = port_file.read_text().split()
            self._socket: ClientConnection = connect(f"ws://127.0.0.1:{port}{way}", max_size=None, compression=None)
        except BaseException:
            self._end()
            raise

    def _says_where(self, port_file: Path) -> bool:
        assert self._process.poll() is None, f"Chromium ended with code {self._process.returncode}"
        return port_file.exists() and len(port_file.read_text().split()) == 2

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    @contextmanager
    def page(
        self, *, size: tuple[int, int] = (1280, 800), scheme: Scheme = "light", before: str = "", scale: float = 1
    ) -> Iterator[Page]:
        """Open a page, and close it after the block. `before` is a script that runs ahead of those of each page."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(size, scale=scale)
        page.prefer(scheme)
        if before:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def call(self, method: str, session: str = "", **params: Any) -> Any:
        """Call a method and return its result. Raises: PageError, TimeoutError."""
        self._number += 1
        asked: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        self._socket.send(json.dumps(asked | ({"sessionId": session} if session else {})))
        while True:
            said = json.loads(self._socket.recv(timeout=ANSWER_TIMEOUT_S))
            if said.get("id") == self._number:
                if "error" in said:
                    raise PageError(f"{method}: {said['error']['message']}")
                return said["result"]
            if "method" in said:
                self._events.setdefault(said.get("sessionId", ""), []).append((said["method"], said["params"]))

    def events(self, session: str) -> Sequence[tuple[str, Any]]:
        """Return what a session has told so far, in order."""
        return self._events.get(session, ())


@attrs.define
class Page:
    """One page. What it is asked to evaluate may be a promise."""

    browser: Browser
    session: str

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol for this page."""
        return self.browser.call(method, self.session, **params)

    def go(self, url: str) -> None:
        """Load a page; returns when it has begun to."""
        self.call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression. Raises: PageError."""
        said = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            details = said["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return said["result"].get("value")

    def wait(self, script: str, *, timeout_s: float = 15.0) -> Any:
        """Wait until an expression is true. Raises: AssertionError naming it."""
        found: list[Any] = []

        def is_true() -> bool:
            found[:] = [self.evaluate(script)]
            return bool(found[0])

        wait_for(is_true, what=script, timeout_s=timeout_s)
        return found[0]

    def text(self, selector: str) -> str:
        """Return the text that a person sees in the first element of a selector."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def resize(self, size: tuple[int, int], *, scale: float = 1) -> None:
        """Give it a size in CSS pixels; below 600 wide it is a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=scale,
            mobile=size[0] < 600,
        )

    def prefer(self, scheme: Scheme) -> None:
        """Prefer light or dark pages, as a person's system does."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str) -> None:
        """Press a key, such as Tab or ArrowLeft, and let it go."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}
        event: Mapping[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        more = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Take a picture as PNG, of the whole page or of what is in sight."""
        options: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))

    @property
    def errors(self) -> list[str]:
        """Everything that its console shows as an error, oldest first: scripts, refused by policy, not found."""
        self.evaluate("0")  # what was said before is here then
        found = []
        for method, params in self.browser.events(self.session):
            if method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(one.get("value", one.get("description"))) for one in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        return found

    @property
    def requested(self) -> set[str]:
        """Every URL that it has asked for."""
        return {
            params.get("request", params).get("url", "")
            for method, params in self.browser.events(self.session)
            if method in ("Network.requestWillBeSent", "Network.webSocketCreated")
        }
