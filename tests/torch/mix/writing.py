"""Modules that write in place, in blocks and between them, or whose Python looks at values."""

from __future__ import annotations

from typing import Any

from odd import BLOCKS, WIDTH, Experts, Frozen, Layer, Whole, Writing
from torch.nn import functional

import torch
from torch import nn


class Inner(nn.Module):
    """A block with one product."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)


class Between(Whole):
    """Its first block sees the batch, and the model writes to what blocks return."""

    def __init__(self) -> None:
        super().__init__(lambda: nn.Linear(WIDTH, WIDTH))
        del self.words

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = given = functional.one_hot(ids % WIDTH, WIDTH).to(self.head.weight.dtype)
        for block in self.blocks:
            x = block(x).mul_(3.0).add_(1.0)
        return self.head(x + given)


class Ignoring(Whole):
    """Blocks write to the stream, and what they return is left alone."""

    def __init__(self) -> None:
        super().__init__(Writing.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) * 1.0
        for block in self.blocks:
            block(x)
        return self.head(x)


class Remembering(Whole):
    """Blocks write to the stream, and the model hands on what it was before as well, which is the same tensor."""

    class Block(Inner):
        def forward(self, x: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
            x += self.inner(x * 1.0 + 0.5 * before).tanh()
            return x

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        before = x = self.words(ids) * 1.0
        for block in self.blocks:
            after = block(x, before)
            before, x = x, after
        return self.head(x)


class Adding(Whole):
    """Blocks write to what they get and return something else; the model hands on both."""

    class Block(Inner):
        def forward(self, x: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
            more = self.inner(x * 1.0 + 0.5 * more).tanh()
            x.add_(more)
            return more

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) * 1.0
        more = x * 0.5
        for block in self.blocks:
            more = block(x, more)
        return self.head(more)


class Counting(Whole):
    """Blocks count in place, in a tensor that depends on no weight."""

    class Block(Inner):
        def forward(self, x: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            count.add_(1)
            return x + self.inner(x * (count + 0)).tanh(), count

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, count = self.words(ids), torch.zeros((), dtype=torch.long, device=ids.device)
        for block in self.blocks:
            x, count = block(x, count)
        return self.head(x)


class Masking(Whole):
    """A part of a mask is written from what the first block returns."""

    def __init__(self) -> None:
        super().__init__(Layer)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(ids, dtype=torch.bool)
        x = self.blocks[0](self.words(ids), ids > 3)
        mask[:, 1:] = (x.detach().sum(-1) > 0)[:, 1:]
        for block in self.blocks[1:]:
            x = block(x, mask)
        return self.head(x)


class Halving(Experts):
    """The model writes to what a block returns beside the stream."""

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, balance = self.words(ids), torch.zeros((), device=ids.device)
        for block in self.blocks:
            x, share = block(x)
            share *= 0.5
            balance = balance + share
        return self.head(x), 0.1 * balance


class Encoder(Frozen):
    """The frozen blocks run without gradients."""

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mask = ids > 3
        with torch.no_grad():
            x = self.words(ids)
            for block in self.blocks[:2]:
                x = block(x, mask)
        for block in self.blocks[2:]:
            x = block(x, mask)
        return self.head(x)


class Ending(Whole):
    """Its Python looks at a value after the last block, as one does to log it."""

    def __init__(self) -> None:
        super().__init__(Layer)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, ids > 3)
        logits = self.head(x)
        return logits * (2.0 if logits.detach().abs().mean().item() > 0 else 1.0)


class Filling(Whole):
    """Blocks write to places of a tensor that the end uses."""

    class Block(Layer):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor, index: int) -> torch.Tensor:  # type: ignore[override]
            x = super().forward(x, mask)
            seen[index] = x.detach().mean()
            return x

    def __init__(self) -> None:
        super().__init__(self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        seen = torch.zeros(BLOCKS, dtype=x.dtype, device=x.device)
        for index, block in enumerate(self.blocks):
            x = block(x, ids > 3, seen, index)
        return self.head(x) * (1 + seen.sum())


class Valued(Whole):
    """Its Python takes a value of what each block returns."""

    def __init__(self) -> None:
        super().__init__(Layer)

    def value_of(self, x: torch.Tensor) -> Any:
        return x.detach().abs().mean().item()

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, seen = self.words(ids), 0.0
        for block in self.blocks:
            x = block(x, ids > 3)
            seen += self.value_of(x)
        return self.head(x) * seen


class Listed(Valued):
    def value_of(self, x: torch.Tensor) -> Any:
        return x.detach().abs().mean().tolist()


class Branching(Valued):
    def value_of(self, x: torch.Tensor) -> Any:
        return 2.0 if x.detach().mean() > 0 else 0.5


class Viewing(Whole):
    """The first block writes to a view of a tensor that the end uses."""

    def __init__(self) -> None:
        super().__init__(Writing.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        whole = self.words(ids) * 1.0
        x = whole[:, :4]
        for block in self.blocks:
            x = block(x)
        return self.head(whole + x.mean(1, keepdim=True))


class Keeping(Whole):
    """A view of what a block returned is used one block later."""

    def __init__(self) -> None:
        super().__init__(Layer)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, kept = self.words(ids), None
        for block in self.blocks:
            x = block(x, ids > 3)
            x, kept = x if kept is None else x + kept.transpose(1, 2), x.transpose(1, 2)
        return self.head(x)


class Buffered(Whole):
    """Blocks count in a buffer of the module, which lasts from step to step."""

    class Block(Layer):
        def forward(self, x: torch.Tensor, mask: torch.Tensor, count: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            count.add_(1)
            return super().forward(x * (1 + count * 0.01), mask)

    def __init__(self) -> None:
        super().__init__(self.Block)
        self.count: torch.Tensor
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, ids > 3, self.count)
        return self.head(x)


class Scaling(Experts):
    """The model writes to what a block keeps in an attribute."""

    class Block(Experts.Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            x, self.share = super().forward(x)
            return x

    def __init__(self) -> None:
        Whole.__init__(self, self.Block)

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, balance = self.words(ids), torch.zeros((), device=ids.device)
        for block in self.blocks:
            x = block(x)
            block.share *= 0.5
        for block in self.blocks:
            balance = balance + block.share
        return self.head(x), 0.1 * balance
