"""How fast the worker is, against what: `scripts/bench`. Its figures are in docs/benchmarks.md."""
