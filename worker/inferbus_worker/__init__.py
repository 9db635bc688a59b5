"""The worker: a daemon that answers chat messages from an MQTT bus with one language model engine."""

__version__ = "0.1.0"
