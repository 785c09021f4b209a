"""Serving on unlike chips: which layers stand on which node, and which replicas on which chips carry a load at the lowest cost."""
