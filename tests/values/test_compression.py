"""Bodies by each codec, and the patience with values that do not get smaller."""

from __future__ import annotations

import lz4.block
import pytest
import zstandard

from proxy.values.compression import FIRST_REST_S, LAST_REST_S, TRIES, TRIES_AGAIN, Patience, compressor
from proxy.values.envelope import Codec

VALUE = b'{"id": 1, "name": "somebody"}' * 30
DICTIONARY = b'"name": "somebody", {"id": ' * 10


def test_compressor_lz4_is_a_bare_block() -> None:
    """Any LZ4 library opens it, given its length; nothing of ours is inside."""
    body = compressor(Codec.LZ4)(VALUE)

    assert lz4.block.decompress(body, uncompressed_size=len(VALUE)) == VALUE
    assert lz4.block.compress(VALUE, store_size=False) == body


def test_compressor_zstd_frame_has_its_length_and_nothing_else() -> None:
    """The checksum and the dictionary are in the envelope; twice would be eight bytes of each small value."""
    known = zstandard.train_dictionary(1024, [b'{"id": %d, "name": "somebody %d"}' % (n, n * 7) for n in range(500)])
    for body in (compressor(Codec.ZSTD)(VALUE), compressor(Codec.ZSTD, known.as_bytes())(VALUE)):
        frame = zstandard.get_frame_parameters(body)

        assert (len(VALUE), 0, False) == (frame.content_size, frame.dict_id, frame.has_checksum)


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_compressor_with_dictionary_makes_small_values_smaller(codec: Codec) -> None:
    """What the value shares with the dictionary is not stored again, also when it is used again and again."""
    compress = compressor(codec, DICTIONARY)
    value = b'{"id": 3, "name": "somebody"}'

    assert len(compress(value)) < len(compressor(codec)(value)) - 8
    assert compress(value) == compress(value)


def fail(patience: Patience, times: int, now: float) -> None:
    """Let values fail to get smaller."""
    for _ in range(times):
        assert not patience.is_resting(now)
        patience.failed(now)


def test_patience_many_in_a_row_rest() -> None:
    """One fewer is not enough, and one that pays makes it begin anew."""
    patience = Patience()
    fail(patience, TRIES - 1, 5.0)
    patience.paid()
    fail(patience, TRIES, 5.0)

    assert patience.is_resting(5.0)
    assert patience.is_resting(5.0 + FIRST_REST_S - 0.1)
    assert not patience.is_resting(5.0 + FIRST_REST_S)


def test_patience_fails_again_rests_twice_as_long_within_bounds() -> None:
    """After each rest a few are tried; however often that fails, it is tried again."""
    patience = Patience()
    now = 0.0
    fail(patience, TRIES, now)
    rests = []
    for _ in range(9):
        began = now
        while patience.is_resting(now):
            now += 1.0
        rests.append(now - began)
        fail(patience, TRIES_AGAIN, now)

    assert [10, 20, 40, 80, 160, 320, 600, 600, 600] == rests
    assert rests[0] == FIRST_REST_S
    assert rests[-1] == LAST_REST_S


def test_patience_one_pays_after_a_rest_is_as_new() -> None:
    """What has changed is tried like anything else, and would rest briefly first."""
    patience = Patience()
    fail(patience, TRIES, 0.0)
    fail(patience, TRIES_AGAIN, 10.0)
    patience.paid()
    fail(patience, TRIES, 100.0)

    assert not patience.is_resting(100.0 + FIRST_REST_S)
