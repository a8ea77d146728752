"""What [tuning] may say."""

from __future__ import annotations

import pytest

from proxy.config.load import default_settings, load_settings
from proxy.config.model import Tuning
from proxy.config.reload import compare
from proxy.errors import ConfigError

MIB = 1 << 20


def test_tuning_is_off_and_bounded_by_default() -> None:
    """Nothing changes itself unless it is told to; then L1 at most doubles."""
    assert default_settings().tuning == Tuning(
        mode="off",
        max_l1_bytes=2 * default_settings().l1.max_bytes,
        min_compress_bytes=1024,
        max_compress_bytes=65_536,
        max_ttl_factor=2.0,
    )


def test_tuning_is_read_as_it_is_written() -> None:
    """Sizes and words as everywhere."""
    settings = load_settings(None, env={}, overrides={"tuning.mode": "apply", "tuning.max_l1_bytes": "1GiB"})

    assert (settings.tuning.mode, settings.tuning.max_l1_bytes) == ("apply", 1024 * MIB)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tuning.mode", "on"),
        ("tuning.max_l1_bytes", "0B"),
        ("tuning.max_ttl_factor", 0.5),
        ("tuning.max_compress_bytes", "512B"),
    ],
)
def test_tuning_that_makes_no_sense_is_a_problem(path: str, value: object) -> None:
    """A wrong word, a bound below what it bounds: each is named, with what is allowed."""
    with pytest.raises(ConfigError) as caught:
        load_settings(None, env={}, overrides={path: value})

    (problem,) = caught.value.problems
    assert problem.path in {path, "tuning.min_compress_bytes"}
    assert problem.allowed


def test_tuning_applies_live() -> None:
    """Each key of it can be changed while the proxy runs."""
    changed = {
        "tuning.mode": "suggest",
        "tuning.max_l1_bytes": "1GiB",
        "tuning.min_compress_bytes": "2KiB",
        "tuning.max_compress_bytes": "1MiB",
        "tuning.max_ttl_factor": 4,
    }
    changes = compare(default_settings(), load_settings(None, env={}, overrides=changed))

    assert changes.live == tuple(changed)
    assert changes.restart == ()
