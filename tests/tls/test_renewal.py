"""A context follows its files, and keeps what it has when they are of no use."""

from __future__ import annotations

import os
from pathlib import Path

from structlog.testing import capture_logs

from proxy.tls.contexts import server_side

from .pems import Pems, shake


def test_current_after_files_changed_is_made_of_the_new_ones(tmp_path: Path) -> None:
    """The next handshake shows the new certificate; what is unchanged is the same context, not one more."""
    pems = Pems(tmp_path)
    pems.write()
    renewable = server_side("listen.tls", pems.settings())
    first = renewable.current()
    old = shake(first, pems.trusting())[1]
    assert renewable.current() is first

    pems.write()

    new = shake(renewable.current(), pems.trusting())[1]
    assert new != old
    assert renewable.current() is not first
    assert shake(first, pems.trusting())[1] == old
    assert (renewable.renewed, renewable.problem) == (1, "")


def test_current_of_a_wrong_file_stays_the_old_one_and_says_why(tmp_path: Path) -> None:
    """Garbage, a missing file, and a key that does not fit change nothing; each is logged once."""
    pems = Pems(tmp_path)
    pems.write()
    renewable = server_side("listen.tls", pems.settings())
    first = renewable.current()
    good = pems.cert.read_bytes()

    pems.cert.write_bytes(b"not a certificate")
    with capture_logs() as logs:
        assert renewable.current() is first
        assert renewable.current() is first
    assert renewable.problem
    assert [(line["log_level"], line["of"]) for line in logs] == [("warning", "listen.tls")]

    pems.cert.unlink()
    assert renewable.current() is first
    assert "No such file" in renewable.problem

    pems.cert.write_bytes(good)
    Pems(tmp_path, pems.authority).key.write_bytes(pems.authority.issue_cert("other").private_key_pem.bytes())
    assert renewable.current() is first
    assert "MISMATCH" in renewable.problem.upper()
    shake(renewable.current(), pems.trusting())

    pems.write()
    assert renewable.current() is not first
    assert renewable.problem == ""


def test_current_when_only_the_link_moved_is_the_new_one(tmp_path: Path) -> None:
    """Kubernetes replaces a folder of secrets by turning a symbolic link."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = Pems(tmp_path / "a")
    one.write()
    Pems(tmp_path / "b", one.authority).write()
    link = tmp_path / "data"
    link.symlink_to("a")
    pems = Pems(link, one.authority)
    renewable = server_side("listen.tls", pems.settings())
    old = shake(renewable.current(), pems.trusting())[1]

    (tmp_path / "next").symlink_to("b")
    os.replace(tmp_path / "next", link)

    assert shake(renewable.current(), pems.trusting())[1] != old
