"""`inferbus stress`: how much load does it take?"""

from inferbus_client.cli.stress.command import stress

__all__ = ["stress"]
