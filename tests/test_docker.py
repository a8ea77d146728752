"""The files of `docker/` fit together and say the truth: there is no Docker where the tests run to try them out."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config.endpoint import parse_amqp_url, parse_endpoint
from proxy.config.load import default_settings
from proxy.events.event import parse_event

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
README = (DOCKER / "README.md").read_text(encoding="utf-8")


def readme_commands() -> list[list[str]]:
    """Return the words of every `docker compose exec` of the page, from the name of the service on."""
    text = README.replace("\\\n", " ").replace("\\|", "|")
    found = re.findall(r"docker compose exec (?:-T )?(.+?)(?:`|  +#|\n)", text)
    return [shlex.split(command) for command in found]


def test_compose_has_the_services_that_the_page_names() -> None:
    """Redis, the broker, Respite and an app."""
    assert {"redis", "rabbitmq", "respite", "app"} == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_compose_waits_only_for_what_can_come_true(name: str) -> None:
    """A service that is waited for exists, and has a health check where its health is waited for."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        # That of Respite is in its Dockerfile.
        assert how["condition"] == "service_started" or "healthcheck" in SERVICES[other] or "build" in SERVICES[other]


def test_compose_respite_finds_redis_and_the_broker() -> None:
    """The URLs lead to services of the file, to the broker as the user that it is started with."""
    environment, broker = SERVICES["respite"]["environment"], SERVICES["rabbitmq"]["environment"]
    amqp = parse_amqp_url(environment["RESPITE_AMQP"])

    assert parse_endpoint(environment["RESPITE_UPSTREAM"]).host in SERVICES
    assert (amqp.host, amqp.port, amqp.vhost) == ("rabbitmq", 5672, "/")
    assert (amqp.username, amqp.password) == (broker["RABBITMQ_DEFAULT_USER"], broker["RABBITMQ_DEFAULT_PASS"])


def test_compose_broker_is_an_image_with_rabbitmqadmin() -> None:
    """The page publishes with rabbitmqadmin as 4.x spells it, which only the images with management have."""
    assert re.fullmatch(r"rabbitmq:4(\.\d+)?-management", SERVICES["rabbitmq"]["image"])


def test_readme_runs_commands_only_in_services_that_are_there() -> None:
    """Every `docker compose exec` of the page names a service of the file."""
    commands = readme_commands()

    assert len(commands) >= 8
    assert {command[0] for command in commands} <= set(SERVICES)


def test_readme_publishes_an_event_that_drops_the_key_it_reads() -> None:
    """The event of the page goes to the exchange of the defaults, logs in, and names the key of its GET."""
    command = next(words for words in readme_commands() if "publish" in words)
    options = dict(itertools.pairwise(command))
    broker = SERVICES["rabbitmq"]["environment"]
    read = next(words[-1] for words in readme_commands() if "GET" in words)

    assert options["--exchange"] == default_settings().amqp.exchange
    assert (options["--username"], options["--password"]) == (
        broker["RABBITMQ_DEFAULT_USER"],
        broker["RABBITMQ_DEFAULT_PASS"],
    )
    assert [read.encode()] == list(parse_event(options["--payload"].encode()).keys)
