"""OpenTelemetry: figures and traces for a collector. Imported only where one is configured."""
