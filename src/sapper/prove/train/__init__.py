"""Prove training: a short training on the device beside the envelope of what correct runs of its precision do."""
