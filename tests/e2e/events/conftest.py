"""The broker of the run, as `tests/amqp` has it."""

from ...amqp.conftest import broker_tls, rabbitmq

__all__ = ["broker_tls", "rabbitmq"]
