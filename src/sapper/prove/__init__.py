"""Prove: is what a device computes right, stable and fast; and if not, is it the chip, the compiler, the exporter or the model?"""
