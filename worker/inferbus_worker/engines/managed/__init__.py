"""Servers that the worker starts and stops itself: their commands, their processes, and whose turn it is in memory."""
