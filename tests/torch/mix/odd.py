"""Modules that hand on more than a stream, or not all of it as arguments: what people write when nobody is to cut it."""

from __future__ import annotations

from typing import Any

from torch.nn import functional

import torch
from sapper.programs.program import Program
from torch import nn

WORDS, WIDTH, BLOCKS = 50, 24, 4


class Layer(nn.Module):
    """Mixes over positions that ``mask`` lets be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 30), nn.Linear(30, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen = x * mask[..., None]
        return x + self.down(functional.gelu(self.up(self.norm(x + seen.cumsum(1) / 7.0))))


class Whole(nn.Module):
    """An embedding, blocks and a head; ``forward`` is each model's own."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, WORDS)


def loss(output: Any, inputs: Any) -> torch.Tensor:
    logits, more = output if isinstance(output, tuple) else (output, 0.0)
    return functional.cross_entropy(logits.reshape(-1, WORDS), inputs["labels"].reshape(-1)) + more


class Experts(Whole):
    """A balance loss that ``forward`` adds up beside the stream."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.parts = nn.Linear(WIDTH, 3), nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            share = self.gate(x).softmax(-1)
            best = functional.one_hot(share.argmax(-1), 3).to(x.dtype)
            mixed = torch.stack([one(x) for one in self.parts], -1) @ (share * best)[..., None]
            return x + mixed[..., 0].tanh(), (share.mean((0, 1)) * best.mean((0, 1))).sum()

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, balance = self.words(ids), torch.zeros((), device=ids.device)
        for block in self.blocks:
            x, share = block(x)
            balance = balance + share
        return self.head(x), 0.1 * balance


class Listening(Whole):
    """A balance loss of what hooks on routers hear, as Transformers collects it; the module around a router returns the same scores."""

    class Block(nn.Module):
        class Mixture(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.router, self.parts = nn.Linear(WIDTH, 3), nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                scores = self.router(x)
                mixed = torch.stack([one(x) for one in self.parts], -1) @ scores.softmax(-1)[..., None]
                return mixed[..., 0].tanh(), scores

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = self.Mixture(), self.Mixture()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.last(x)[0]
            return x + self.first(x)[0]

    def __init__(self) -> None:
        super().__init__(self.Block)
        self.heard: list[torch.Tensor] = []
        for block in self.blocks:
            for mixture in (block.first, block.last):
                mixture.router.register_forward_hook(lambda _, __, scores: self.heard.append(scores))

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.heard.clear()
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        shares = torch.stack([scores.softmax(-1).mean((0, 1)) for scores in self.heard])
        order = torch.arange(1.0, 1.0 + len(shares), dtype=shares.dtype, device=shares.device)
        return self.head(x), 0.1 * (order[:, None] * shares.square()).sum()


class Attending(Whole):
    """PyTorch's own Transformer layers, whose dropout is in functions of Python that call others; sequences first or samples first."""

    batch_first = True

    def __init__(self) -> None:
        layer = {"d_model": WIDTH, "nhead": 2, "dim_feedforward": 30, "dropout": 0.2, "batch_first": self.batch_first}
        super().__init__(lambda: nn.TransformerEncoderLayer(**layer))

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        x = x if self.batch_first else x.transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x if self.batch_first else x.transpose(0, 1))


class AttendingAcross(Attending):
    """Sequences first."""

    batch_first = False


class Frozen(Whole):
    """Embedding and first two blocks learn nothing."""

    def __init__(self) -> None:
        super().__init__(Layer)
        for part in (self.words, *self.blocks[:2]):
            part.requires_grad_(False)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, mask = self.words(ids), ids > 3
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x)


class Passing(Whole):
    """Each block hands on the mask as it is and a count of whole numbers."""

    class Block(Layer):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, count: torch.Tensor) -> Any:  # type: ignore[override]
            return super().forward(x, mask), mask, count + 1

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, mask, count = self.words(ids), ids > 3, torch.zeros((), dtype=torch.long, device=ids.device)
        for block in self.blocks:
            x, mask, count = block(x, mask, count)
        return self.head(x) * count * mask[..., None]


class Seeing(Whole):
    """The first block makes a mask of what it sees, which all blocks use."""

    class Block(Layer):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> Any:  # type: ignore[override]
            mask = x[..., 0] > 0.1 if mask is None else mask
            return super().forward(x, mask), mask

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, mask = self.blocks[0](self.words(ids), None)
        for block in self.blocks[1:]:
            x, _ = block(x, mask)
        return self.head(x)


class Writing(Whole):
    """Blocks write to what they get."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x += self.inner(x * 1.0).tanh()
            return x

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Weightless(Whole):
    """Its first block has no weights, and sees numbers that are none of theirs."""

    def __init__(self) -> None:
        super().__init__(Writing.Block)
        self.blocks[0] = nn.Softmax(-1)
        del self.words

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = functional.one_hot(ids % WIDTH, WIDTH).to(self.head.weight.dtype)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Placed(Whole):
    """All blocks get the same view of a frozen table, and another of a table that learns."""

    class Block(Layer):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, *, fixed: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward(x + fixed * learnt, mask)

    def __init__(self) -> None:
        super().__init__(self.Block)
        self.fixed, self.learnt = nn.Embedding(16, WIDTH), nn.Parameter(torch.randn(16, WIDTH))
        self.fixed.requires_grad_(False)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, fixed = self.words(ids), self.fixed(torch.arange(ids.shape[1], device=ids.device))[None]
        learnt = (self.learnt * 2)[None, : ids.shape[1]]
        for block in self.blocks:
            x = block(x, ids > 3, fixed=fixed, learnt=learnt)
        return self.head(x)


class Watching(Whole):
    """What it keeps of each block, without its gradient, it uses at the end."""

    def __init__(self) -> None:
        super().__init__(Layer)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, seen = self.words(ids), []
        for block in self.blocks:
            x = block(x, ids > 3)
            seen.append(x.detach().mean(-1, keepdim=True))
        return self.head(x * torch.stack(seen).mean(0))


class Telling(Watching):
    """What it keeps of each block it tells beside the logits, and no loss depends on it."""

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, seen = self.words(ids), []
        for block in self.blocks:
            x = block(x, ids > 3)
            seen.append(x.detach().mean())
        self.told = torch.stack(seen)
        return self.head(x)


def build_of(kind: Any) -> Any:
    return lambda: Program(module=kind(), inputs={}, loss=loss)
