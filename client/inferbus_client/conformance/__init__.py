"""Whether a worker keeps to the contract: cases as data, and what plays them against any broker."""
