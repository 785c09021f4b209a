"""The probe's source, in the order in which :mod:`sapper.probe.emit` joins it to one file.

The code runs inside vendors' containers: Python 3.8, any PyTorch since 1.11, and nothing else. Nothing here may import
Sapper at run time; imports between the parts vanish when they are joined, and the phrases are written into the file.
"""
