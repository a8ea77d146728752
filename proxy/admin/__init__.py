"""The HTTP port for people, probes and Prometheus."""
