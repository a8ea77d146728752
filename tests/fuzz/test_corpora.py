"""Every reader of foreign bytes, on what is kept of earlier runs of the fuzzer and on a few new inputs."""

from __future__ import annotations

import json

import pytest

from . import corpus
from .fuzzer import fuzz
from .targets import TARGETS

CORPORA_MAX_BYTES = 300_000
SEED = 7


@pytest.mark.parametrize("name", TARGETS)
def test_target_corpus_and_new_inputs_are_read(name: str) -> None:
    """Nothing that was ever found is wrong again, nor is what a short run of the fuzzer comes upon."""
    target = TARGETS[name]
    known = len(corpus.load(name)) + len(target.seeds)

    outcome = fuzz(target, seed=SEED, inputs=known + target.short_inputs, is_guided=False)

    assert not outcome.findings, outcome.findings[0].test()
    assert known + target.short_inputs == outcome.inputs


def test_corpora_are_there_for_every_target_and_small() -> None:
    """A repository is no place for megabytes of what nobody reads."""
    files = sorted(path.stem for path in corpus.FOLDER.glob("*.jsonl"))

    assert sorted(TARGETS) == files
    assert sum(path.stat().st_size for path in corpus.FOLDER.glob("*.jsonl")) < CORPORA_MAX_BYTES


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_lines_are_texts_in_order(name: str) -> None:
    """A line is a JSON text of the bytes, the shortest first, none twice: what changed can be seen in a diff."""
    lines = (corpus.FOLDER / f"{name}.jsonl").read_text().splitlines()
    inputs = [json.loads(line).encode("latin-1") for line in lines]

    assert sorted(set(inputs), key=lambda one: (len(one), one)) == inputs
    assert max(map(len, inputs)) <= TARGETS[name].max_bytes
