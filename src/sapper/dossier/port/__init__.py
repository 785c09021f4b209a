"""The picture of a port: where the couplings are, what becomes of each on each target, what it takes; silent ones on top."""
