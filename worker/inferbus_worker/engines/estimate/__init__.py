"""What a model will take of the memory, reckoned from its own files before anything is loaded."""

from inferbus_worker.engines.estimate.figures import Estimate, estimate, fits
from inferbus_worker.engines.estimate.strangers import NoEstimateError
from inferbus_worker.engines.estimate.terms import DTYPES, KV_DTYPES, Terms

__all__ = ["DTYPES", "KV_DTYPES", "Estimate", "NoEstimateError", "Terms", "estimate", "fits"]
