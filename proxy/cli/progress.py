"""How far a long command is: a bar in a terminal, a line now and then where there is none. On stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from proxy.net.values.unwrapping import Progress

_LINE_EVERY_S: Final = 5.0


class Meter(Protocol):
    """Shows progress within a `with`."""

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the bar, if there is one."""
        ...


def make_meter(*, is_quiet: bool) -> Meter:
    """Make what fits stderr; one that says nothing if it is to be quiet."""
    console = Console(stderr=True, highlight=False)
    if is_quiet:
        return _Silence()
    return _BarMeter(console) if console.is_terminal else _LineMeter()


def describe(progress: Progress) -> str:
    """Say in a few words what has been done."""
    left = progress.damaged + progress.ambiguous + progress.contended
    return f"{progress.keys:,} looked at, {progress.unwrapped:,} unwrapped" + (f", {left:,} left" if left else "")


class _Silence:
    def show(self, progress: Progress) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _LineMeter(_Silence):
    def __init__(self) -> None:
        self._due = 0.0

    def __enter__(self) -> Self:
        self._due = time.monotonic() + _LINE_EVERY_S  # what is done sooner needs no lines
        return self

    def show(self, progress: Progress) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LINE_EVERY_S
            print(f"{progress.share:4.0%}  {describe(progress)}", file=sys.stderr, flush=True)


class _BarMeter(_Silence):
    def __init__(self, console: Console) -> None:
        columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        # Without a thread of its own: it is redrawn when something has changed.
        self._bar = Bar(*columns, console=console, auto_refresh=False)
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.share, description=describe(progress), refresh=True)
