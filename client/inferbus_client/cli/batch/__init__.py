"""`inferbus batch`: a file of requests in, a file of answers out."""

from inferbus_client.cli.batch.command import batch

__all__ = ["batch"]
