"""Limits per time, which the gateway's keys have too: `10/60s`, or `off`."""

from inferbus_client.settings.rates import OwnRate, Rate, RateLimit

__all__ = ["OwnRate", "Rate", "RateLimit"]
