"""The command `inferbus`. The client brings chat, ask, stress and status; the worker adds its verbs when installed."""
