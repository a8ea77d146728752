"""Which prefixes are watched, and that the index finds the channels that a plain search would find."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.model import ClassSettings
from proxy.core.feed import channels
from proxy.core.feed.channels import Channel, read_channel
from proxy.core.feed.index import PREFIXES_MAX, ChannelIndex, do_cover, merge_prefixes
from proxy.values.globs import compile_glob
from proxy.values.overlapping import do_overlap
from proxy.values.rules import Rules

TEXTS = st.text("ab:*?", min_size=1, max_size=6)
PREFIXES = st.lists(st.binary(max_size=4), max_size=60)


def channel_of(name: str) -> Channel:
    """Make a channel."""
    kind, raw, glob = read_channel(name)
    return Channel(name, kind, raw, b"", 0, glob)


@settings(max_examples=50, deadline=None)
@given(PREFIXES, st.integers(1, 8))
def test_merged_prefixes_are_few_and_take_what_the_given_ones_take(prefixes: list[bytes], most: int) -> None:
    """Redis refuses prefixes that overlap: none is the beginning of another."""
    merged = merge_prefixes(prefixes, most)

    assert len(merged) <= most
    assert do_cover(merged, prefixes)
    assert not [1 for one in merged for other in merged if one is not other and one.startswith(other)]


def test_prefixes_that_have_most_in_common_become_one() -> None:
    """What is watched besides is as little as can be."""
    prefixes = [b"ticket:%d" % number for number in range(100)] + [b"user:1", b"x"]

    assert (b"ticket:", b"user:1", b"x") == merge_prefixes(prefixes, 3)
    assert (b"ticket:1", b"ticket:2") == merge_prefixes([b"ticket:1", b"ticket:2", b"ticket:10"], 3)
    assert len(merge_prefixes([b"%d" % number for number in range(1000)])) <= PREFIXES_MAX


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, max_size=12, unique=True), st.lists(TEXTS, max_size=4), TEXTS)
def test_index_finds_what_a_plain_search_finds(names: list[str], gone: list[str], text: str) -> None:
    """Of a key, and of what a fence takes; also when channels have gone again."""
    index = ChannelIndex(Rules(()))
    channels = {name: channel_of(name) for name in names}
    for channel in channels.values():
        index.add(channel)
    for name in gone:
        if name in channels:
            index.of_key(text.encode())
            index.remove(channels.pop(name))
    key, fence = text.encode(), compile_glob(text.encode())

    globs = {name: compile_glob(name.encode()) for name in channels}
    assert {name for name, glob in globs.items() if glob.matches(key)} == {one.name for one in index.of_key(key)}
    assert {name for name, glob in globs.items() if do_overlap(glob.parts, fence.parts)} == {
        one.name for one in index.of_glob(key)
    }
    assert set(channels) == {one.name for one in index.channels()}


def test_two_names_of_one_key_are_two_channels() -> None:
    r"""`a` and `\a` mean the same key; each hears under the name it was asked by."""
    index = ChannelIndex(Rules(()))
    plain, escaped = channel_of("a"), channel_of(r"\a")
    index.add(plain)
    index.add(escaped)
    both = index.of_key(b"a")
    index.remove(plain)

    assert ((plain, escaped), (escaped,)) == (both, index.of_key(b"a"))


def test_index_finds_globs_of_many_literals_as_well() -> None:
    """Where there are many of one shape, they are looked up instead of searched for; in long keys the other way."""
    index = ChannelIndex(Rules(()))
    for number in range(100):
        index.add(channel_of(f"a:*:{number:02}:*"))

    assert ["a:*:42:*"] == [one.name for one in index.of_key(b"a:x:42:y")]
    assert ["a:*:42:*"] == [one.name for one in index.of_key(b"a:" + b"x" * 2000 + b":42:y")]
    assert ["a:*:07:*", "a:*:42:*"] == sorted(one.name for one in index.of_key(b"a:x:42::07:"))
    assert () == index.of_key(b"a:42:") == index.of_key(b"a:") == index.of_key(b"b:x:42:y")


def test_index_takes_long_globs_to_overlap_by_their_beginning() -> None:
    """What comes far behind is not compared: too much is told rather than too little, and soon."""
    index = ChannelIndex(Rules(()))
    same, other = channel_of("t:*" + "ab" * 40), channel_of("t:x" + "ab" * 40 + "*")
    index.add(same)
    index.add(other)

    assert [same] == list(index.of_glob(b"t:y" + b"ab" * 40 + b"c"))
    assert [] == list(index.of_glob(b"u:*"))


def index_of_bearers(tag: str) -> ChannelIndex:
    """Return an index with the channel `key*`, and a class `key*` whose keys bear a tag made of a template."""
    index = ChannelIndex(Rules((ClassSettings("k", ("key*" + ":*" * 8,), tags=(tag,)),)))
    index.add(channel_of("key*"))
    return index


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "ab", "b", "{1}", "{2}"]), min_size=1, max_size=6), st.text("ab", max_size=8))
def test_globs_hear_of_a_tag_that_a_class_of_theirs_may_bear(pieces: list[str], tag: str) -> None:
    """Whatever the wildcards took; the judge is a regular expression."""
    judge = "".join(".*" if piece.startswith("{") else piece for piece in pieces)

    heard = bool(list(index_of_bearers("".join(pieces)).of_tag(tag.encode())))

    assert heard == (re.fullmatch(judge, tag) is not None)


@pytest.mark.alone
def test_index_is_quick_with_a_tag_made_to_be_hard() -> None:
    """The template is configured, the tag anybody's: it is gone through once, whatever it looks like."""
    index = index_of_bearers("{1}a{2}a{3}a{4}a{5}a{6}b")
    began = time.perf_counter()

    assert [] == list(index.of_tag(b"a" * 4000))
    assert time.perf_counter() - began < 0.1


@pytest.mark.alone
def test_index_is_quick_with_globs_made_to_be_hard() -> None:
    """A subscription of them does not stop the loop, which serves everybody."""
    index = ChannelIndex(Rules(()))
    for number in range(256):
        index.add(channel_of(f"t:*{number:03}" + "*a" * 7 + "a" * 90))
    took = []
    for number in range(5):
        began = time.perf_counter()
        index.of_glob(b"t:list:%d:*" % number)
        index.of_tag(b"x")
        took.append(time.perf_counter() - began)

    assert min(took) < 0.05


def test_channel_of_a_key_is_read_without_an_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a thousand bytes takes milliseconds to compile, and 256 of them come in one subscription."""
    monkeypatch.setattr(channels, "compile_glob", None)
    read_channel.cache_clear()

    assert read_channel("k" * 1000 + "\\*") == ("key", b"k" * 1000 + b"*", None)
