"""The manifest of `docker/kubernetes/` says the truth about the image and the code: no cluster is here to try it on."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.admin.routes import ROUTES
from proxy.app import DRAIN_S
from proxy.cli.main import cli
from proxy.config.endpoint import is_loopback, parse_admin_url, parse_endpoint
from proxy.config.load import load_settings
from proxy.config.model import Settings
from proxy.config.units import parse_bytes

DOCKER = Path(__file__).parents[1] / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
PROBE = "/opt/respite/probe.py"
OBJECTS: dict[str, dict[str, Any]] = {
    one["kind"]: one for one in yaml.safe_load_all((DOCKER / "kubernetes" / "sidecar.yaml").read_text(encoding="utf-8"))
}
POD: dict[str, Any] = OBJECTS["Pod"]["spec"]
(SIDECAR,) = POD["initContainers"]
(APP,) = POD["containers"]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Read what the container would read: the file of the ConfigMap, the environment of the manifest."""
    (variable,) = SIDECAR["env"]
    named = variable["valueFrom"]["secretKeyRef"]
    assert named["name"] == OBJECTS["Secret"]["metadata"]["name"]
    (name,) = OBJECTS["ConfigMap"]["data"]
    path = tmp_path / name
    path.write_text(OBJECTS["ConfigMap"]["data"][name], encoding="utf-8")
    env = {variable["name"]: OBJECTS["Secret"]["stringData"][named["key"]]}
    return load_settings(path, env=env, overrides={})


def test_app_finds_respite_and_nobody_else_does(settings: Settings) -> None:
    """The URL of the app is where Respite listens: on loopback, as does its admin port."""
    (listening,) = settings.listen.urls
    (url,) = (one["value"] for one in APP["env"] if one["name"] == "REDIS_URL")

    assert parse_endpoint(url) == listening
    assert is_loopback(listening.host)
    assert is_loopback(parse_admin_url(settings.listen.admin)[0])
    assert settings.upstream.endpoint is not None


def test_file_lies_where_the_image_reads_it() -> None:
    """The folder that is mounted is the one of RESPITE_CONFIG, under the name of the ConfigMap's key."""
    found = re.search(r"RESPITE_CONFIG=(\S+)", DOCKERFILE)
    assert found
    mounts = {one["name"]: one["mountPath"] for one in SIDECAR["volumeMounts"]}
    volumes = {one["name"]: one for one in POD["volumes"]}

    assert mounts.keys() == volumes.keys()
    (name,) = OBJECTS["ConfigMap"]["data"]
    assert f"{mounts['respite']}/{name}" == found[1]
    assert volumes["respite"]["configMap"]["name"] == OBJECTS["ConfigMap"]["metadata"]["name"]


@pytest.mark.parametrize("name", PROBES)
def test_probes_ask_what_the_admin_port_answers(name: str, settings: Settings) -> None:
    """Each runs the probe of the image, for a path that there is, at the port where the admin port is."""
    program, script, word = SIDECAR[name]["exec"]["command"]

    assert (program, script) == ("python", PROBE)
    assert f"COPY docker/probe.py {PROBE}" in DOCKERFILE
    assert ("GET", f"/{word}") in {(route.method, route.path) for route in ROUTES}
    assert runpy.run_path(str(DOCKER / "probe.py"))["ADMIN"] == settings.listen.admin


def test_probes_restart_only_what_is_dead() -> None:
    """A Redis that is away makes the pod not ready; it restarts nobody."""
    words = {name: SIDECAR[name]["exec"]["command"][-1] for name in PROBES}

    assert words == {"startupProbe": "readyz", "livenessProbe": "healthz", "readinessProbe": "readyz"}


def test_pod_that_ends_has_time_for_the_hook_and_the_drain() -> None:
    """The hook is a command of ours, and the grace is more than it and a drain together may take."""
    program, word, *flags = SIDECAR["lifecycle"]["preStop"]["exec"]["command"]
    command = cli.commands[word]

    with command.make_context(word, list(flags)) as context:
        patience_s = context.params["patience_s"]

    assert (program, word) == ("respite", "drain")
    assert POD["terminationGracePeriodSeconds"] > patience_s + DRAIN_S


def test_sidecar_starts_before_the_app_and_stays() -> None:
    """An init container that is always restarted is Kubernetes' own form of a sidecar."""
    assert SIDECAR["restartPolicy"] == "Always"


def test_sidecar_may_do_nothing_but_serve() -> None:
    """It runs as the user of the image, without any capability, on a file system that it cannot write."""
    context = SIDECAR["securityContext"]

    assert f"--uid {context['runAsUser']} " in DOCKERFILE
    assert context["runAsNonRoot"] is context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_memory_is_enough_for_l1_and_its_bookkeeping(settings: Settings) -> None:
    """Kubernetes writes sizes without the B; the limit leaves room beyond twice what L1 may hold."""
    limit = parse_bytes(f"{SIDECAR['resources']['limits']['memory']}B")

    assert limit > 2 * settings.l1.max_bytes + (64 << 20)
