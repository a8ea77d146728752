"""Lines on stderr: their form, their level, and what never appears in them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from proxy.log import SAME_A_SECOND, configure, get_logger, short


@pytest.fixture(autouse=True)
def _restore_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (b"user:1", "user:1"),
        ("schlüssel".encode(), "schlüssel"),
        (b"a\r\nb\x1b[31m", r"a\r\nb\x1b[31m"),
        (b"\xff\x00", r"\xff\x00"),
        (b"k" * 64, "k" * 64),
        (b"k" * 65, "k" * 64 + "...(65 bytes)"),
        (b"", ""),
    ],
)
def test_short_key_is_printable_and_bounded(key: bytes, shown: str) -> None:
    """A key is shown as text where it is text, escaped where it is not, and cut after 64 bytes."""
    assert short(key) == shown


def test_short_key_cut_inside_a_character_stays_printable() -> None:
    """A cut in the middle of a UTF-8 sequence shows the bytes that are left as escapes."""
    assert short(b"k" * 63 + "é".encode() + b"tail") == "k" * 63 + r"\xc3" + "...(69 bytes)"


def test_text_line_holds_time_level_module_event_and_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    """A text line is time, level, module, event, then key=value, with quotes where a value would be ambiguous."""
    configure("info", "text")

    get_logger("proxy.net").warning("link lost", url="redis://h:1", reason="reset by peer", key=b"a b", empty="", n=3)

    line = capsys.readouterr().err
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\dT[\d:.]+Z warning proxy\.net: link lost "
        r'url=redis://h:1 reason="reset by peer" key="a b" empty="" n=3\n',
        line,
    )


def test_json_line_is_one_object_with_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON line is one object: time, level, module, event, and each pair with its own type; keys are cut short."""
    configure("info", "json")

    get_logger("proxy.net").info("link up", key=b"k" * 100, n=3, text="two\nlines")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    entry = json.loads(captured.err)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "info",
        "module": "proxy.net",
        "event": "link up",
        "key": "k" * 64 + "...(100 bytes)",
        "n": 3,
        "text": "two\nlines",
    }


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2Jcleared", 'say "hi"', "a=b", "é\u2028"])
def test_text_line_is_one_line_whatever_a_value_holds(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Control bytes of a peer neither break a line nor reach the terminal, in a value as in the event."""
    configure("info", "text")

    get_logger("proxy.net").info("event " + text, reason=text)

    line = capsys.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_level_drops_what_is_below_it(capsys: pytest.CaptureFixture[str], level: str, expected: int) -> None:
    """Each level writes itself and what is graver."""
    log = get_logger("proxy.x")
    configure(level, "text")

    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")

    assert capsys.readouterr().err.count("\n") == expected


def test_configure_again_changes_loggers_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """A reload of the level reaches loggers that were made, and used, before it."""
    log = get_logger("proxy.x")
    configure("error", "text")
    log.info("unseen")

    configure("debug", "json")
    log.info("seen")

    assert json.loads(capsys.readouterr().err)["event"] == "seen"


@pytest.mark.parametrize("format_name", ["text", "json"])
def test_exception_is_logged_with_its_trace(capsys: pytest.CaptureFixture[str], format_name: str) -> None:
    """The trace stands below a text line and inside a JSON object, without the values of local variables."""
    configure("info", format_name)
    try:
        secret = "hunter" + str(2)
        raise ValueError("broken")
    except ValueError:
        get_logger("proxy.x").exception("it failed")

    written = capsys.readouterr().err
    assert "ValueError: broken" in written
    assert secret not in written
    assert written.count("\n") == 1 if format_name == "json" else written.splitlines()[0].endswith("it failed")


def test_line_that_is_said_again_and_again_is_left_out_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of lines of one event a second has 20, whatever stands beside it; the next second's first says how many more."""
    seconds = iter(["2026-01-01T00:00:00.1Z"] * 1003 + ["2026-01-01T00:00:01.0Z"] * 2)

    def stamp(_logger: object, _method: str, line: dict[str, object]) -> dict[str, object]:
        return {**line, "time": next(seconds)}

    monkeypatch.setattr(structlog.processors, "TimeStamper", lambda **_: stamp)
    configure("info", "json")
    log = get_logger("proxy.x")
    for number in range(1000):
        log.info("knocked", address=f"10.0.0.{number}")
    log.error("knocked")
    log.info("another")
    get_logger("proxy.y").info("knocked")
    log.info("knocked", address="10.0.0.1")
    log.info("knocked")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == SAME_A_SECOND + 4
    assert [line.get("left_out") for line in lines] == [None] * (SAME_A_SECOND + 2) + [981, None]


class _BrokenPipe(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [_BrokenPipe(), None])
def test_line_that_cannot_be_written_is_dropped(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    """A reader of the log that has gone, or none at all, does not stop whoever logs."""
    configure("info", "text")
    monkeypatch.setattr(sys, "stderr", stream)

    get_logger("proxy.x").info("nobody hears")


def test_line_to_a_closed_file_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stderr does not stop whoever logs."""
    closed = io.StringIO()
    closed.close()
    configure("info", "text")
    monkeypatch.setattr(sys, "stderr", closed)

    get_logger("proxy.x").info("nobody hears")


@pytest.mark.parametrize(("level", "format_name"), [("loud", "text"), ("info", "xml")])
def test_configure_unknown_word_raises(level: str, format_name: str) -> None:
    """A level or format nobody knows is refused."""
    with pytest.raises(ValueError, match="no such log level or format"):
        configure(level, format_name)


def test_log_is_imported_without_rich_which_others_may_import_still() -> None:
    """A proxy draws nothing: it need not have all of it in memory."""
    script = "import proxy.log, sys; assert not {'rich', 'rich.traceback'} & set(sys.modules); import rich.table"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
