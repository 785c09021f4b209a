"""The dry run: a program of the user's own on an accelerator that does not exist.

The program runs as it is, in processes of its own. Into each Python process that it starts, Sapper puts ``inside`` by a
``sitecustomize`` on ``PYTHONPATH``: it plugs in the emulated chip under the vendor's name, watches every touch of CUDA,
answers it as the vendor's stack would, and writes what it saw, one JSON line each. Afterwards the lines of all processes
are put together and laid beside the findings of the scan.
"""
