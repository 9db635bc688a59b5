"""`inferbus chat`: a conversation in the terminal."""

from inferbus_client.cli.chat.command import chat

__all__ = ["chat"]
