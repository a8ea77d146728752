"""What the classes and the scope say about a key: may it be held, how stale may it get, who makes it anew."""

from __future__ import annotations

from typing import Literal

import pytest

from proxy.config.model import ClassSettings
from proxy.core.policy import Policy
from proxy.wire.encode import bulk

PAGES = ClassSettings("pages", ("page:*",), max_staleness_s=0.5, recompute_lease_s=3.0, while_recomputed="stale")
CARTS = ClassSettings("carts", ("cart:*", "basket:?"), l1=False, max_staleness_s=0.1, recompute_lease_s=1.0)
REST = ClassSettings("rest", ("page:*", "user:[0-9]*"), max_staleness_s=2.0)
CLASSES = (PAGES, CARTS, REST)
Scope = Literal["all", "classes"]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (b"page:1", "pages"),
        (b"cart:1", "carts"),
        (b"basket:1", "carts"),
        (b"basket:12", None),
        (b"user:7", "rest"),
        (b"user:x", None),
        (b"page", None),
        (b"", None),
        (b"page:\r\n$1\r\n\x00\xff", "pages"),
    ],
)
def test_find_gives_the_first_class_that_takes_the_key(key: bytes, name: str | None) -> None:
    """Keys come as bulk strings and are judged by what is in them."""
    policy = Policy(CLASSES)
    rules = policy.find(bulk(key))

    assert (rules.name if rules is not None else None) == policy.class_of(bulk(key)) == name


@pytest.mark.parametrize("scope", ["all", "classes"])
@pytest.mark.parametrize(("key", "expected"), [(b"page:1", True), (b"cart:1", False), (b"user:7", True)])
def test_key_of_a_class_is_held_as_its_class_says(scope: Scope, key: bytes, expected: bool) -> None:
    """Whatever the scope."""
    assert Policy(CLASSES, scope).may_keep(bulk(key)) is expected


@pytest.mark.parametrize(("scope", "expected"), [("all", True), ("classes", False)])
def test_key_of_no_class_is_held_as_the_scope_says(scope: Scope, expected: bool) -> None:
    """With classes and without."""
    assert Policy(CLASSES, scope).may_keep(bulk(b"other")) is expected
    assert Policy((), scope).may_keep(bulk(b"other")) is expected


@pytest.mark.parametrize(
    ("key", "expected"), [(b"page:1", 0.5), (b"cart:1", 0.1), (b"user:7", 2.0), (b"other", None), (b"plain:1", None)]
)
def test_max_staleness_is_that_of_the_class_or_none(key: bytes, expected: float | None) -> None:
    """None where l1.max_staleness holds: no class, or one that does not say."""
    policy = Policy((*CLASSES, ClassSettings("plain", ("plain:*",))))

    assert policy.max_staleness_s(bulk(key)) == expected


def test_tightest_bound_is_of_classes_that_are_held() -> None:
    """The link need not be pinged faster for what is never served."""
    assert Policy(CLASSES).tightest_s == 0.5
    assert Policy((CARTS,)).tightest_s is None
    assert Policy((ClassSettings("plain", ("plain:*",)),)).tightest_s is None
    assert Policy().tightest_s is None


@pytest.mark.parametrize(("key", "lease_s"), [(b"page:1", 3.0), (b"user:7", None), (b"other", None)])
def test_recompute_is_for_classes_with_a_lease(key: bytes, lease_s: float | None) -> None:
    """0, the default, is no lease."""
    rules = Policy(CLASSES).recompute(bulk(key))

    assert (rules.recompute_lease_s if rules is not None else None) == lease_s


@pytest.mark.parametrize(
    ("classes", "scope", "expected"),
    [
        (CLASSES, "classes", (b"page:", b"user:")),
        (CLASSES, "all", ()),
        ((CARTS,), "classes", ()),
        ((*CLASSES, ClassSettings("any", ("*:list",))), "classes", ()),
        ((PAGES, ClassSettings("all pages", ("pa*",))), "classes", (b"pa",)),
        ((), "classes", ()),
        ((), "all", ()),
    ],
    ids=["classes", "all keys", "none in L1", "a wildcard first", "overlap", "nothing", "default"],
)
def test_prefixes_are_what_broadcast_is_limited_to(
    classes: tuple[ClassSettings, ...], scope: Scope, expected: tuple[bytes, ...]
) -> None:
    """Of what may be held; () is every key, as Redis takes it."""
    assert Policy(classes, scope).prefixes == expected


def test_policy_is_needed_when_any_key_is_treated_otherwise() -> None:
    """Without classes and with every key held, nobody asks it."""
    assert not Policy().is_needed
    assert Policy((), "classes").is_needed
    assert Policy((PAGES,)).is_needed
