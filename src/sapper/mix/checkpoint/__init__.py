"""Checkpoints of a training job that load onto any other mix of chips: written beside the training, whole or not at all.

A folder of the run holds one folder for each step kept: safetensors files, in which tensors bear the model's own names, and a
manifest that names each file with its SHA-256 and is written last. A tensor that several ranks hold in pieces is stored in those
pieces; whoever loads asks for any box of it. PyTorch's own ``torch.distributed.checkpoint`` is not used: it needs one process group
over all ranks, whose PyTorch would have to be of one version, and its files are readable by itself alone.
"""

from __future__ import annotations
