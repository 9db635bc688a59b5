"""The worker: a daemon that answers chat messages from an MQTT bus with one language model engine."""
