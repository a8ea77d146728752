"""What was found: the input, what it did, and a test that shows it.

Owns how two findings are told apart: by what was raised, and where in our code.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

import attrs

_ROOT: Final = Path(__file__).parents[2]
_SHOWN: Final = 4000


@attrs.frozen
class Finding:
    """One input that something is wrong with; `number` is which one of its run it was, from 1."""

    target: str
    data: bytes
    error: BaseException = attrs.field(eq=False)
    number: int
    seed: int

    @property
    def place(self) -> str:
        """What was raised, and where: equal for two inputs that show the same."""
        return place_of(self.error)

    def show(self, folder: Path) -> str:
        """Save the input in a folder, and return all there is to say of it."""
        path = folder / f"{self.target}-{self.number}.bin"
        path.write_bytes(self.data)
        trace = "".join(traceback.format_exception(self.error))
        return "\n".join(
            [
                f"FOUND in {self.target}: {self.place}, input {self.number} of seed {self.seed}",
                trace[-_SHOWN:].rstrip(),
                f"saved: {path}    again: python -m tests.fuzz {self.target} --input {path}",
                "as a test:",
                "",
                self.test(),
            ]
        )

    def test(self) -> str:
        """Return the source of a test that fails as long as this is so."""
        name = self.target.replace("-", "_")
        return "\n".join(
            [
                "from tests.fuzz.fuzzer import try_once",
                "from tests.fuzz.targets import TARGETS",
                "",
                "",
                f"def test_{name}_input_{self.number}_is_read() -> None:",
                f'    """{type(self.error).__name__} once."""',
                f"    try_once(TARGETS[{self.target!r}], {self.data!r})",
                "",
            ]
        )


def place_of(error: BaseException) -> str:
    """Return what was raised, and the last line of ours that it came through."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(_ROOT)) and not frame.filename.endswith(("watch.py", "target.py"))
    ]
    where = f" at {Path(ours[-1].filename).relative_to(_ROOT)}:{ours[-1].lineno}" if ours else ""
    return f"{type(error).__name__}{where}"
