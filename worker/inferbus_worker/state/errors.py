"""What can be wrong with a store that workers share. To verbs it is what a broker's error is."""

from __future__ import annotations

from inferbus_client.errors import BrokerError


class StoreError(BrokerError):
    """The store did not do what it was asked for."""


class StoreAwayError(StoreError):
    """It cannot be reached now, is full, or is not ready. It may be at any time, with nobody doing anything here."""


class StoreRefusedError(StoreError):
    """It answers, and somebody has to change something: credentials, TLS, its version, what the URL leads to."""


class StoreAnswerError(StoreError):
    """It answers one command with an error that no other way of asking would help with."""
