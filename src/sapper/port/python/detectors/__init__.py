"""Detectors: what a table of names cannot say; ``NAME.py`` holds ``NAME(module, rule)``, which a rule names."""
