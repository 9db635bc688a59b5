"""What many workers on one store need, before one has them: `scripts/simulate-fleet`. Its tables are in docs/fleet.md.

A discrete-event simulation. The queue is the worker's own (`flow/queue.py`, with its lanes, shares and bounds) on a
clock of the simulation's; the store is one server that does one thing at a time, as Redis does; the broker deals to the
workers in turns and looks at nothing. Nothing else costs time here: no processor is ever short but the store's.
"""
