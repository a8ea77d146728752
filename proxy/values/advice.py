"""What a configuration says that is allowed and can hardly be meant, for `respite check` to say."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

import attrs

from proxy.config.alerts import DEFAULTS
from proxy.config.globs import Part, parse_glob
from proxy.config.model import ClassSettings, Settings
from proxy.config.units import format_seconds
from proxy.values.covering import is_covered
from proxy.values.dependents_advice import doubtful_dependencies


@attrs.frozen
class _Earlier:
    """A class that comes first, and its globs."""

    name: str
    globs: tuple[tuple[Part, ...], ...]


def warnings(settings: Settings) -> tuple[str, ...]:
    """Return a sentence a doubt: on globs, TTLs, dependencies, passwords, alerts, each in the order of the file."""
    classes = settings.classes
    return (
        *_never_matching(classes),
        *_ttls_without_effect(classes),
        *doubtful_dependencies(classes),
        *_open_passwords(settings),
        *_alerts_without_effect(settings),
    )


def _open_passwords(settings: Settings) -> Iterator[str]:
    """Name the users whose password whoever reads the file can use."""
    names = ", ".join(user.name for user in settings.listen.users if user.password)
    if names:
        yield f"listen.users: the password of {names} stands in the file as it is; respite hash-password hides it"


def _alerts_without_effect(settings: Settings) -> Iterator[str]:
    """Name what turns an alert off that is not there: most likely its name is misspelt, and it stays on."""
    known = [default.name for default in DEFAULTS]
    for rule in settings.alerts:
        if not rule.enabled and rule.when is None and rule.name not in known:
            near = difflib.get_close_matches(rule.name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"alert.{rule.name} turns off nothing: no alert at hand has that name{hint}"


def _never_matching(classes: Sequence[ClassSettings]) -> Iterator[str]:
    """Name globs whose keys an earlier class takes, all of them, and classes that are left with no key."""
    before: list[_Earlier] = []
    for one in classes:
        globs = tuple(parse_glob(glob.encode()) for glob in one.match)
        takers = [_taker(glob, before) for glob in globs]
        if all(takers):
            by = " and ".join(dict.fromkeys(takers))
            yield f"class.{one.name} can never match: all its keys go to {by}, above it"
        else:
            for glob, taker in zip(one.match, takers, strict=True):
                if taker:
                    yield f"class.{one.name}.match: {glob!r} can never match: all its keys go to {taker}, above it"
        before.append(_Earlier(one.name, globs))


def _taker(glob: tuple[Part, ...], before: Sequence[_Earlier]) -> str:
    """Say who comes first and takes every key of a glob: one class if one does, else all together; "" for nobody."""
    if not before or not is_covered(glob, [other for earlier in before for other in earlier.globs]):
        return ""
    alone = (f"class.{earlier.name}" for earlier in before if is_covered(glob, earlier.globs))
    return next(alone, "several classes together")


def _ttls_without_effect(classes: Sequence[ClassSettings]) -> Iterator[str]:
    """Name a base that nothing uses, and one that lies outside the bounds, which win."""
    for one in classes:
        if one.ttl_s is None:
            continue
        path, base = f"class.{one.name}.ttl", format_seconds(one.ttl_s)
        if one.adaptive_ttl == "off" and one.ttl_when_missing == "leave":
            yield f"{path} has no effect: neither adaptive_ttl nor ttl_when_missing makes use of it"
        elif one.max_ttl_s is not None and one.ttl_s > one.max_ttl_s:
            yield f"{path} is {base}, above max_ttl ({format_seconds(one.max_ttl_s)}), which wins"
        elif one.min_ttl_s is not None and one.ttl_s < one.min_ttl_s:
            yield f"{path} is {base}, below min_ttl ({format_seconds(one.min_ttl_s)}), which wins"
