"""The commands about dead letters: look through them, send them again, throw them away.

Only parses, asks and prints; `proxy.amqp.desk` talks to the broker. Letters are named by their place in the queue, as
`list` numbers them, or by their id, which stays the same when others come and go.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from proxy.cli.broker import amqp_option, settings_with_broker
from proxy.cli.meaning import explain, meaning_lines
from proxy.cli.options import FAILED, config_option, json_option, print_json
from proxy.cli.plain import be_lenient, body_lines, many, moment, plain_json, printable, shorten
from proxy.errors import RespiteError
from proxy.events.payload import unpack

if TYPE_CHECKING:
    from proxy.amqp.desk import Letter, Selection, Tally
    from proxy.config.model import Settings

_LISTED: Final = 50
_ASKED_ABOUT: Final = 5
_LONGEST_RANGE: Final = 1_000_000
_HEADER_WIDTH: Final = 400
_BAR_FROM: Final = 500  # letters; fewer are done before anybody wonders
_WORD: Final = re.compile(r"(?P<id>[0-9a-f]{10})|(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?", re.ASCII)

_letters: Final = click.argument("words", metavar="[LETTER]...", nargs=-1)
_limit: Final = click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many, the oldest first.")
_all: Final = click.option("--all", "is_all", is_flag=True, help="Every letter that is there when it begins.")


@click.group()
def dlq() -> None:
    """Look at, replay and drop dead letters: events that could not be understood or applied.

    A LETTER is named by its place in the queue (3, or 3-7 for several), or by its id, which stays the same when others
    come and go. `list` shows both.
    """


@dlq.command("list")
@_letters
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1),
    default=_LISTED,
    show_default=True,
    help="At most so many, the oldest first.",
)
@amqp_option
@config_option
@json_option
def list_(*, words: tuple[str, ...], limit: int, amqp_url: str | None, config_path: Path | None, as_json: bool) -> None:
    """List dead letters, the oldest first: what they were, and why they died.

    They stay where they are; while it runs, others do not see those it looks at.
    """
    selection = _selection(words, limit)
    settings = settings_with_broker(config_path, amqp_url)
    from proxy.amqp.desk import list_letters  # noqa: PLC0415 - brings trio along

    with _meter("reading", is_quiet=as_json) as show:
        listing = list_letters(settings.amqp, selection, show)
    if as_json:
        print_json({"total": listing.total, "letters": [_facts(letter) for letter in listing.letters]})
        return
    be_lenient()
    for line in _table(listing.letters):
        click.echo(line)
    queue = settings.amqp.dead_letter_queue
    if words and not listing.letters:
        raise RespiteError(_no_such(words))
    if not listing.total:
        click.echo(f"no dead letters in {queue}")
    elif not words and len(listing.letters) < listing.total:
        click.echo(f"{len(listing.letters):,} of {listing.total:,} in {queue}; --limit N shows more")


@dlq.command()
@click.argument("word", metavar="LETTER")
@click.option("--body", "is_body", is_flag=True, help="Print the body alone, byte for byte.")
@amqp_option
@config_option
@json_option
def show(*, word: str, is_body: bool, amqp_url: str | None, config_path: Path | None, as_json: bool) -> None:
    """Show one dead letter: why it died, its headers and body, and what it would be if it were replayed now."""
    selection = _selection((word,), 1)
    settings = settings_with_broker(config_path, amqp_url)
    from proxy.amqp.desk import fetch_letter  # noqa: PLC0415 - brings trio along

    with _meter("reading", is_quiet=as_json or is_body) as meter:
        letter = fetch_letter(settings.amqp, selection, meter)
    if letter is None:
        raise RespiteError(_no_such((word,)))
    if is_body:
        click.echo(letter.message.body, nl=False)
    elif as_json:
        print_json(_facts(letter) | _contents(letter) | {"now": explain(settings, letter.message)})
    else:
        be_lenient()
        for line in _letter_lines(letter, settings):
            click.echo(line)


@dlq.command()
@_letters
@_all
@_limit
@amqp_option
@config_option
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    is_all: bool,
    limit: int | None,
    amqp_url: str | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Send dead letters to the queue they came from, with all their attempts before them.

    Each is taken out of the dead letters once the broker has confirmed that it has it. Ctrl-C stops after what runs;
    the rest stays. Exit code 1 if a letter that was meant has not been sent.
    """
    selection = _chosen(words, limit, is_all=is_all)
    settings = settings_with_broker(config_path, amqp_url)
    from proxy.amqp.desk import replay as send  # noqa: PLC0415 - brings trio along

    with _meter("replaying", is_quiet=as_json) as meter:
        tally = send(settings.amqp, selection, meter)
    ctx.exit(_conclude(tally, words, "replayed", as_json=as_json))


@dlq.command()
@_letters
@_all
@_limit
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@amqp_option
@config_option
@json_option
@click.pass_context
def drop(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    is_all: bool,
    limit: int | None,
    is_sure: bool,
    amqp_url: str | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Throw dead letters away, for good.

    Shows what would go and asks first; without --yes, exactly what was shown goes, whatever came and went meanwhile.
    """
    selection = _chosen(words, limit, is_all=is_all)
    settings = settings_with_broker(config_path, amqp_url)
    from proxy.amqp.desk import Selection, list_letters  # noqa: PLC0415 - brings trio along
    from proxy.amqp.desk import drop as forget  # noqa: PLC0415 - brings trio along

    if not is_sure:
        with _meter("reading", is_quiet=as_json) as meter:
            letters = list_letters(settings.amqp, selection, meter).letters
        if letters:
            _ask(letters, settings.amqp.dead_letter_queue)
            selection = Selection(ids=frozenset(letter.id for letter in letters), most=len(letters))
    with _meter("dropping", is_quiet=as_json) as meter:
        tally = forget(settings.amqp, selection, meter)
    ctx.exit(_conclude(tally, words, "dropped", as_json=as_json))


def _chosen(words: Sequence[str], limit: int | None, *, is_all: bool) -> Selection:
    if bool(words) == is_all:
        raise click.UsageError(
            "--all and a LETTER are two selections; give one of them"
            if is_all
            else "no letter is named; give its place or id, as `respite dlq list` shows them, or --all"
        )
    return _selection(words, limit)


def _selection(words: Sequence[str], most: int | None) -> Selection:
    from proxy.amqp.letters import Selection  # noqa: PLC0415 - brings trio along

    numbers: set[int] = set()
    ids: set[str] = set()
    for word in words:
        found = _WORD.fullmatch(word)
        if found is None:
            raise click.UsageError(f"{word!r} names no letter; a place (3), places (3-7) or an id (10 hex digits) does")
        if found["id"]:
            ids.add(found["id"])
            continue
        first, last = int(found["first"]), int(found["last"] or found["first"])
        if not 1 <= first <= last or last - first >= _LONGEST_RANGE:
            raise click.UsageError(f"{word!r} names no letter; places count from 1, the oldest letter")
        numbers.update(range(first, last + 1))
    return Selection(frozenset(numbers), frozenset(ids), most)


def _ask(letters: Sequence[Letter], queue: str) -> None:
    be_lenient()
    for line in _table(letters[:_ASKED_ABOUT]):
        click.echo(line, err=True)
    if len(letters) > _ASKED_ABOUT:
        click.echo(f"and {len(letters) - _ASKED_ABOUT:,} more", err=True)
    click.confirm(f"Drop {many(len(letters), 'letter')} of {queue} for good?", abort=True, err=True)


def _conclude(tally: Tally, words: Sequence[str], done: str, *, as_json: bool) -> int:
    """Say what became of it; return the exit code."""
    if as_json:
        reasons = [{"id": letter.id, "number": letter.number, "reason": why} for letter, why in tally.reasons]
        left = tally.total - tally.done
        print_json(
            {
                "finished": tally.is_finished,
                "total": tally.total,
                done: tally.done,
                "refused": tally.refused,
                "left": left,
                "reasons": reasons,
            }
        )
    else:
        click.echo(f"{done} {many(tally.done, 'letter')}, {many(tally.total - tally.done, 'letter')} left")
    if tally.refused:
        click.echo(f"respite: the broker did not take {many(tally.refused, 'letter')}; they stay", err=True)
        for letter, why in tally.reasons:
            click.echo(f"  {letter.number} ({letter.id}): {printable(why)}", err=True)
    if not tally.is_finished:
        click.echo("respite: stopped; the same command goes on with the rest", err=True)
    elif words and not tally.chosen:
        click.echo(f"respite: {_no_such(words)}", err=True)
        return FAILED
    return 0 if tally.is_finished and not tally.refused else FAILED


def _no_such(words: Sequence[str]) -> str:
    return f"there is no letter {', '.join(words)}; `respite dlq list` shows those that are there"


def _table(letters: Sequence[Letter]) -> Iterator[str]:
    """Yield a line a letter: place, id, size, routing key, reason."""
    if not letters:
        return
    keys = [shorten(printable(letter.message.routing_key), 40) for letter in letters]
    places = max(len(str(letters[-1].number)), 2)
    width = max(*map(len, keys), len("routing key"))
    from proxy.cli.forms import size  # noqa: PLC0415 - brings rich along

    yield f"{'no':>{places}}  {'id':10}  {'size':>9}  {'routing key':{width}}  reason"
    for letter, key in zip(letters, keys, strict=True):
        yield (
            f"{letter.number:{places}}  {letter.id}  {size(letter.size_bytes):>9}  {key:{width}}  "
            f"{shorten(printable(letter.reason), 100)}"
        )


def _letter_lines(letter: Letter, settings: Settings) -> Iterator[str]:
    """Yield what is known of a letter; our own headers are among the facts already."""
    from proxy.cli.forms import size  # noqa: PLC0415 - brings rich along

    message = letter.message
    facts = _facts(letter)
    facts |= {"size": size(facts.pop("size_bytes")), "published": facts.pop("published_at_ms")}
    if facts["published"] is not None:
        facts["published"] = moment(facts["published"])
    for name, value in facts.items():
        if value not in (None, ""):
            yield f"{name.replace('_', ' '):16}  {printable(value)}"
    for name, value in message.headers.items():
        if not name.startswith("respite-"):
            yield f"{'header':16}  {printable(name)} = {shorten(printable(plain_json(value)), _HEADER_WIDTH)}"
    yield "sent again now, it would be"
    yield from (f"  {line}" for line in meaning_lines(settings, message))
    yield "body"
    try:
        body = unpack(message.body, message.content_encoding)
    except ValueError:
        body = message.body
    yield from (f"  {line}" for line in body_lines(body))


def _facts(letter: Letter) -> dict[str, Any]:
    message = letter.message
    return {
        "number": letter.number,
        "id": letter.id,
        "reason": letter.reason,
        "routing_key": message.routing_key,
        "exchange": letter.exchange,
        "attempts": letter.attempts,
        "size_bytes": letter.size_bytes,
        "published_at_ms": message.published_at_ms,
        "message_id": message.message_id,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
    }


def _contents(letter: Letter) -> dict[str, Any]:
    """Return headers and body; a byte of the body that is no UTF-8 is written as events have it (surrogateescape)."""
    return {
        "headers": plain_json(letter.message.headers),
        "body": letter.message.body.decode("utf-8", "surrogateescape"),
    }


@contextmanager
def _meter(doing: str, *, is_quiet: bool) -> Iterator[Callable[[Tally], None]]:
    """Give a function that shows how far it is: a bar on stderr, where that is a terminal and there is much to do."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _tally: None
        return
    with ExitStack() as stack:
        bars: list[Any] = []

        def show(tally: Tally) -> None:
            if tally.last < _BAR_FROM:
                return
            if not bars:
                bars.append(stack.enter_context(click.progressbar(length=tally.last, label=doing, file=sys.stderr)))
            bars[0].update(tally.seen - bars[0].pos)

        yield show
