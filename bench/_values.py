"""Values as apps store them: JSON documents, chat messages, HTML fragments. The same seed makes the same ones.

The words follow each other as they do in Python's own documentation, which every interpreter brings along: a chain of
word after word has the repetitions of written language and none of whole sentences. Around them is what makes values of
one sort alike (field names, tags, classes) and what makes each its own (ids, times, hashes, amounts). Sizes are spread
evenly over their logarithm: there are as many from 1 to 10 kB as from 10 to 100.
"""

import html
import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pydoc_data.topics import topics
from typing import Any, Final

import attrs

# fmt: off
_FIRST_NAMES: Final = (
    "Aisha", "Bruno", "Chiara", "Dmitri", "Elif", "Femi", "Grace", "Hiroshi", "Ines", "Jonas", "Katarzyna", "Liam",
    "Mei", "Noor", "Olga", "Pablo", "Quentin", "Rosa", "Søren", "Tamara", "Uwe", "Valérie", "Wanjiru", "Xavier",
    "Yusuf", "Zoë",
)
_LAST_NAMES: Final = (
    "Adeyemi", "Bauer", "Castillo", "Dubois", "Eriksen", "Fischer", "García", "Huang", "Ivanova", "Jansen",
    "Kowalski", "Lindqvist", "Müller", "Nakamura", "Okafor", "Petrov", "Quispe", "Rossi", "Schmidt", "Tanaka", "Ueda",
    "Vargas", "Weber", "Xu", "Yilmaz", "Zimmermann",
)
# fmt: on
_STATES: Final = ("new", "open", "pending", "resolved", "closed")
_WORD: Final = re.compile(r"[A-Za-z][a-z'-]*[.,;:?!]?").fullmatch  # the documentation also holds code
_EMOJI: Final = "👍🎉😅🙏🔥👀✅❤️🤔😂"


class Writer:
    """Writes text, and all that records are made of."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._next: dict[str, list[str]] = {}
        words = list(filter(_WORD, " ".join(topics[name] for name in sorted(topics)).split()))
        for word, after in pairwise(words):
            self._next.setdefault(word, []).append(after)
        self._starts = sorted(word for word in self._next if word.isalpha() and word.istitle())

    def text(self, size: int) -> str:
        """Write about so many characters."""
        draw, following, starts = self.random.random, self._next, self._starts
        word = starts[int(draw() * len(starts))]
        words, length = [word], len(word)
        while length < size:
            choices = following.get(word, starts)
            word = choices[int(draw() * len(choices))]
            words.append(word)
            length += len(word) + 1
        return " ".join(words)

    def name(self) -> str:
        """Name a person."""
        return f"{self.random.choice(_FIRST_NAMES)} {self.random.choice(_LAST_NAMES)}"

    def time(self) -> str:
        """Write a moment of two years."""
        draw = self.random.randrange
        return (
            f"202{draw(4, 6)}-{draw(1, 13):02}-{draw(1, 29):02}T"
            f"{draw(24):02}:{draw(60):02}:{draw(60):02}.{draw(1000):03}Z"
        )

    def hash(self, bits: int = 128) -> str:
        """Write what nothing can be known of."""
        return f"{self.random.getrandbits(bits):0{bits // 4}x}"

    def size(self, low: int, high: int) -> int:
        """Draw a size, each as likely as one that is twice as large."""
        return round(low * (high / low) ** self.random.random())


def document(writer: Writer, size: int) -> bytes:
    """Write what an API returns: a ticket with its comments, a page of a catalogue, or the series of a dashboard."""
    head, parts_name, part_of = writer.random.choice([_ticket, _catalogue, _dashboard])(writer)
    parts: list[dict[str, Any]] = []
    length = len(json.dumps(head, ensure_ascii=False))
    while length < size:
        parts.append(part_of(writer, max(size - length, 20)))
        length += len(json.dumps(parts[-1], ensure_ascii=False)) + 2
    return json.dumps({**head, parts_name: parts}, ensure_ascii=False).encode()


_PartOf = Callable[[Writer, int], dict[str, Any]]


def _ticket(writer: Writer) -> tuple[dict[str, Any], str, _PartOf]:
    draw = writer.random
    head = {
        "id": draw.randrange(10**7),
        "uuid": writer.hash(),
        "subject": writer.text(draw.randrange(20, 80)),
        "state": draw.choice(_STATES),
        "priority": draw.randrange(1, 6),
        "createdAt": writer.time(),
        "updatedAt": writer.time(),
        "requester": _person(writer),
        "assignee": _person(writer) if draw.random() < 0.8 else None,
        "tags": [writer.text(1).lower() for _ in range(draw.randrange(5))],
    }
    return head, "comments", _comment


def _comment(writer: Writer, room: int) -> dict[str, Any]:
    draw = writer.random
    return {
        "id": draw.randrange(10**9),
        "author": _person(writer),
        "createdAt": writer.time(),
        "isPublic": draw.random() < 0.7,
        "body": writer.text(min(writer.size(40, 1200), room)),
        "attachments": [
            {
                "fileName": f"{writer.text(1).lower()}-{draw.randrange(1000)}.png",
                "sha256": writer.hash(256),
                "sizeBytes": writer.size(900, 10**6),
            }
            for _ in range(draw.choice([0, 0, 0, 1, 2]))
        ],
    }


def _catalogue(writer: Writer) -> tuple[dict[str, Any], str, _PartOf]:
    draw = writer.random
    head = {
        "query": writer.text(15).lower(),
        "page": draw.randrange(1, 40),
        "total": draw.randrange(5000),
        "tookMs": draw.randrange(3, 400),
    }
    return head, "items", _product


def _product(writer: Writer, _room: int) -> dict[str, Any]:
    draw = writer.random
    number = draw.randrange(10**6)
    return {
        "sku": f"{writer.hash(32).upper()}-{draw.randrange(100):02}",
        "title": writer.text(draw.randrange(15, 60)),
        "description": writer.text(writer.size(40, 400)),
        "price": {"amount": round(draw.uniform(1, 900), 2), "currency": "EUR", "taxRate": draw.choice([0.07, 0.19])},
        "stock": {"available": draw.randrange(200), "warehouse": f"W{draw.randrange(12):02}", "backorder": False},
        "rating": {"average": round(draw.uniform(1, 5), 1), "count": draw.randrange(3000)},
        "images": [f"https://img.example.com/{writer.hash(80)}.webp" for _ in range(draw.randrange(1, 4))],
        "links": {"self": f"https://api.example.com/v2/products/{number}", "related": f"/v2/products/{number}/related"},
        "updatedAt": writer.time(),
    }


def _dashboard(writer: Writer) -> tuple[dict[str, Any], str, _PartOf]:
    head = {"dashboard": writer.hash(64), "from": writer.time(), "to": writer.time(), "stepS": 60, "timezone": "UTC"}
    return head, "series", _series


def _series(writer: Writer, _room: int) -> dict[str, Any]:
    draw = writer.random
    began, value = draw.randrange(1_700_000_000, 1_760_000_000), draw.uniform(5, 500)
    points = []
    for number in range(draw.randrange(10, 60)):
        value = max(0.0, value + draw.gauss(0, 0.05 * value))
        points.append([began + 60 * number, round(value, 2)])
    return {
        "metric": f"http_request_{draw.choice(['duration_ms', 'bytes', 'errors', 'count'])}",
        "labels": {"service": writer.text(1).lower(), "zone": f"eu-{draw.randrange(3)}", "pod": writer.hash(40)},
        "points": points,
    }


def _person(writer: Writer) -> dict[str, Any]:
    name = writer.name()
    address = name.lower().replace(" ", ".")
    return {"id": writer.random.randrange(10**5), "name": name, "email": f"{address}@example.com"}


def message(writer: Writer, size: int) -> bytes:
    """Write a chat message with what a client needs to show it."""
    draw = writer.random
    made: dict[str, Any] = {
        "id": writer.hash(64),
        "channel": f"C{draw.randrange(10**6):06}",
        "user": {"id": draw.randrange(10**5), "name": writer.name()},
        "ts": writer.time(),
    }
    if draw.random() < 0.3:
        made["replyTo"] = writer.hash(64)
    if draw.random() < 0.25:
        made["reactions"] = {draw.choice(_EMOJI): draw.randrange(1, 9) for _ in range(draw.randrange(1, 4))}
    if draw.random() < 0.15:
        made["link"] = f"https://files.example.com/{writer.hash(96)}"
    left = size - len(json.dumps(made, ensure_ascii=False)) - 12
    made["text"] = writer.text(max(left, 10)) + (f" {draw.choice(_EMOJI)}" if draw.random() < 0.3 else "")
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode()


def fragment(writer: Writer, size: int) -> bytes:
    """Write a part of a page: rows of a table, cards, or a thread."""
    draw = writer.random
    row = draw.choice([_table_row, _card, _post])
    head = f'<section class="panel panel--{row.__name__.strip("_")}" data-rev="{writer.hash(32)}">\n'
    parts, length = [head, f"  <h2>{html.escape(writer.text(30))}</h2>\n"], len(head)
    while length < size:
        part = row(writer, max(min(size - length - 200, 900), 20))
        parts.append(part)
        length += len(part)
    return "".join([*parts, "</section>\n"]).encode()


def _table_row(writer: Writer, _room: int) -> str:
    draw = writer.random
    number, state = draw.randrange(10**6), draw.choice(_STATES)
    return (
        f'  <tr id="row-{number}" class="row row--{state}">\n'
        f'    <td class="cell cell--id"><a href="/tickets/{number}">#{number}</a></td>\n'
        f'    <td class="cell cell--subject">{html.escape(writer.text(draw.randrange(15, 60)))}</td>\n'
        f'    <td class="cell cell--state"><span class="badge badge--{state}">{state}</span></td>\n'
        f'    <td class="cell cell--owner">{writer.name()}</td>\n'
        f'    <td class="cell cell--time"><time datetime="{writer.time()}">{draw.randrange(2, 50)} h ago</time></td>\n'
        "  </tr>\n"
    )


def _card(writer: Writer, room: int) -> str:
    draw = writer.random
    number = draw.randrange(10**5)
    return (
        f'  <article class="card" data-sku="{writer.hash(40)}">\n'
        f'    <a class="card__link" href="/p/{number}"><img class="card__image" loading="lazy" '
        f'width="320" height="240" src="https://img.example.com/{writer.hash(80)}.webp" alt=""></a>\n'
        f'    <h3 class="card__title">{html.escape(writer.text(draw.randrange(20, 60)))}</h3>\n'
        f'    <p class="card__text">{html.escape(writer.text(min(writer.size(60, 300), room)))}</p>\n'
        f'    <span class="card__price">€ {draw.uniform(1, 400):.2f}</span>\n'
        f'    <button class="button button--primary" data-add="{number}">Add to cart</button>\n'
        "  </article>\n"
    )


def _post(writer: Writer, room: int) -> str:
    draw = writer.random
    return (
        f'  <div class="post" id="post-{draw.randrange(10**8)}">\n'
        f'    <header class="post__head"><strong>{writer.name()}</strong> <time datetime="{writer.time()}"></time>'
        f'<span class="post__votes">{draw.randrange(200)}</span></header>\n'
        f"    <p>{html.escape(writer.text(min(writer.size(80, 900), room)))}</p>\n"
        f"  </div>\n"
    )


@attrs.frozen
class DataSet:
    """Values of one sort, and the keys they are stored under."""

    name: str
    prefix: str
    low_bytes: int
    high_bytes: int
    write: Callable[[Writer, int], bytes]

    def values(self, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
        """Make keys and values; with another seed the keys are the same and the values are not."""
        writer = Writer(seed)
        for number in range(count):
            yield f"{self.prefix}:{number:07}", self.write(writer, writer.size(self.low_bytes, self.high_bytes))


DATA_SETS: Final = (
    DataSet("JSON documents", "doc", 1_000, 100_000, document),
    DataSet("chat messages", "chat", 200, 4_000, message),
    DataSet("HTML fragments", "html", 500, 40_000, fragment),
)
