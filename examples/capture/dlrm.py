"""A click model in the manner of DLRM (Naumov et al., arXiv:1906.00091): tables of embeddings, dot products of all pairs of
features, two towers of linear layers. One sample is one click; most of the model is tables of which a sample reads rows.

    sapper capture examples/capture/dlrm.py
"""

import itertools

from torch.nn import functional

import torch
from torch import nn

ROWS = 1_000_000
TABLES, SIZE, BAG, DENSE = 26, 128, 10, 13


def tower(*sizes):
    parts = []
    for inputs, outputs in itertools.pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Dlrm(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(ROWS, SIZE, mode="sum") for _ in range(TABLES))
        self.bottom = tower(DENSE, 512, 256, SIZE)
        pairs = (TABLES + 1) * TABLES // 2
        self.top = tower(SIZE + pairs, 1024, 1024, 512, 256, 1)
        self.register_buffer("pairs", torch.triu_indices(TABLES + 1, TABLES + 1, 1), persistent=False)

    def forward(self, dense, *bags):
        bottom = self.bottom(dense)
        features = torch.stack([bottom, *(table(bag) for table, bag in zip(self.tables, bags, strict=True))], 1)
        products = torch.bmm(features, features.transpose(1, 2))
        return self.top(torch.cat([bottom, products[:, self.pairs[0], self.pairs[1]]], 1)).squeeze(1)


def build(batch):
    bags = [torch.zeros(batch, BAG, dtype=torch.long) for _ in range(TABLES)]
    clicks = torch.zeros(batch)
    loss = lambda logits: functional.binary_cross_entropy_with_logits(logits.float(), clicks)  # noqa: E731
    return {"module": Dlrm(), "inputs": (torch.zeros(batch, DENSE), *bags), "loss": loss, "seq": 1}
