"""Respite: a sidecar cache proxy that speaks the Redis protocol."""

__version__ = "0.1.0"
