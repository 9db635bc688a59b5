"""Spans for OpenTelemetry, and nothing of it while tracing is off."""
