"""Loading a configuration from a text, for good and for bad."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from proxy.config.load import load_settings
from proxy.config.model import Settings
from proxy.errors import ConfigError, Problem


class Load(Protocol):
    """Loads the text of a file with an environment and flags of the test's own, both empty by default."""

    def __call__(
        self, text: str, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> Settings:
        """Return the settings; raise ConfigError."""


class Fail(Protocol):
    """Loads what cannot be loaded."""

    def __call__(
        self, text: str, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> dict[str, Problem]:
        """Return the problems by their path; no path has two."""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a configuration from a text."""

    def load_text(
        text: str, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> Settings:
        path = tmp_path / "respite.toml"
        path.write_text(text, encoding="utf-8")
        return load_settings(path, env=env or {}, overrides=overrides or {})

    return load_text


@pytest.fixture
def fail(load: Load) -> Fail:
    """Load a configuration that must fail."""

    def fail_text(
        text: str, env: Mapping[str, str] | None = None, overrides: Mapping[str, object] | None = None
    ) -> dict[str, Problem]:
        with pytest.raises(ConfigError) as caught:
            load(text, env, overrides)
        problems = {problem.path: problem for problem in caught.value.problems}
        assert len(problems) == len(caught.value.problems), "a key is reported twice"
        return problems

    return fail_text


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """Provide a readable file where a certificate belongs; configuration does not look inside."""
    path = tmp_path / "x.pem"
    path.write_text("")
    return path
