"""The stage of one seat: its part of the model with weights, ready to run micro-batches forward and backward."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch.overrides import TorchFunctionMode

import torch
from sapper.errors import BadPlan
from sapper.mix.run import tree
from sapper.mix.run.anatomy import Anatomy, Uncuttable, anatomy
from sapper.mix.run.chain import Chain, find_chain
from sapper.mix.run.comm import DTYPES
from sapper.mix.run.cuts import Cut, Rule
from sapper.mix.run.exchange import Group
from sapper.mix.run.job import Job
from sapper.mix.run.layertimes import LayerTimes
from sapper.mix.run.models import without_data
from sapper.mix.run.randomness import Randomness, drops
from sapper.mix.run.recompute import prepared
from sapper.mix.run.split import Ran, Split, strip
from sapper.mix.run.tensor import own_plan, rules, shard
from sapper.predict.plan import Recompute
from sapper.programs import faults
from sapper.programs.program import Program
from torch import nn

Kind = Literal["forward", "backward"]
"""Of a pass."""


@dataclasses.dataclass
class Passed:
    """A micro-batch between its forward and its backward pass."""

    received: Sequence[torch.Tensor]
    leaves: list[torch.Tensor | None]
    """Where the gradients of what was received will be."""
    sent: list[torch.Tensor]
    """Of the last stage: the loss, weighted."""
    forward_s: float = 0.0
    """That the forward pass took."""


class Stage:
    """Layers ``first`` to ``last`` (excluded) of a job's model, on the job's device.

    Args:
        job: The job.
        first: First layer.
        last: One past the last layer.
        dtype: Working dtype: ``fp64``, ``fp32``, ``bf16`` or ``fp16``.
        recompute: What the backward pass computes again.
        anatomy: Of the job's model, where it is known from an earlier stage; None: it is found.
        tensor: The group of the chips that compute one micro-batch together; None: this one alone.

    Raises:
        SapperError: The model cannot be cut there.
    """

    def __init__(
        self, job: Job, *, first: int, last: int, dtype: str, recompute: Recompute = "none", anatomy: Anatomy | None = None,
        tensor: Group | None = None,
    ) -> None:  # fmt: skip
        self.device, self.dtype = torch.device(job.device), DTYPES[dtype]
        self.first, self.last = first, last
        whole = first == 0 and last == job.plan.layers + 2
        self.anatomy = anatomy or dissect(job, whole=whole)
        program = job.model.empty()
        module = program.module
        self.sizes = {name: one.numel() for name, one in module.named_parameters() if one.requires_grad}
        """Elements of all weights of the whole model that learn, in an order that all ranks share."""
        keep = self.anatomy.owned(first, last) if self.anatomy else frozenset(name for name, _ in module.named_parameters())
        job.model.fill(module, keep, seed=job.seed)
        if self.anatomy:
            strip(module, keep, chain=self.anatomy.chain, device=self.device, dtype=self.dtype)
        self.tensor = tensor
        self.rules: dict[str, Rule] = {}
        """How weights are cut, here or elsewhere in the job."""
        self.cuts: dict[str, Cut] = {}
        """What this process has of those that are cut here."""
        if any(one.tp > 1 for pipeline in job.plan.pipelines for one in pipeline.stages):
            self._cut(program.tp_plan or own_plan(module), module, keep)
        self._program = dataclasses.replace(program, module=_moved(module, self.device, self.dtype))
        self.module: nn.Module = module
        self.weights: dict[str, torch.Tensor] = {}
        """Those that learn, in the working dtype."""
        self.masters: dict[str, torch.Tensor] = {}
        """The same in at least fp32, for the optimizer; the weight itself where that is what it is."""
        self.frozen: dict[str, torch.Tensor] = {}
        """Those that do not learn."""
        for name, one in module.named_parameters():
            if name in keep:
                self._place(name, one)
        self.around: Callable[[Kind], contextlib.AbstractContextManager[None]] = lambda _: contextlib.nullcontext()
        """What is in force around each pass."""
        self._split = Split(module, self.anatomy, first=first, last=last, device=self.device) if self.anatomy else None
        self._randomness = Randomness(job.seed) if drops(module) else None
        self._times: LayerTimes | None = None
        if self.anatomy is not None:
            self._prepare(self.anatomy.chain, recompute)

    @property
    def used(self) -> Mapping[str, frozenset[int]]:
        """Weight -> layers that use it; of a model that is not taken apart, layer 0."""
        return self.anatomy.used if self.anatomy else dict.fromkeys((*self.weights, *self.frozen), frozenset({0}))

    def _cut(self, plan: Mapping[str, str], module: nn.Module, keep: frozenset[str]) -> None:
        self.rules = rules(module, plan, keep=keep.__contains__)
        if self.tensor is not None:
            self.cuts = shard(module, plan, group=self.tensor, keep=keep.__contains__)

    def _place(self, name: str, weight: torch.Tensor) -> None:
        """Move a weight to the device and the working dtype."""
        wide = torch.promote_types(self.dtype, torch.float32)
        master = weight.data.to(device=self.device, dtype=wide if weight.is_floating_point() else None)
        weight.data = self._cast(master)
        if weight.requires_grad:
            self.weights[name] = weight
            self.masters[name] = weight if weight.dtype == wide else master
        else:
            self.frozen[name] = weight

    def _prepare(self, chain: Chain, recompute: Recompute) -> None:
        """Let each own block say which layer's random numbers follow, and recompute as the plan says."""
        randomness, blocks = self._randomness, chain.blocks(self.module)
        for layer, block in enumerate(blocks, 1):
            if self.first <= layer < self.last:
                block.forward = prepared(block.forward, layer=layer, recompute=recompute, randomness=randomness, modes=self._modes)
        if randomness is not None:
            blocks[-1].register_forward_hook(lambda *_: randomness.enter(len(blocks) + 1))

    def time_layers(self, on: bool) -> None:
        """Whether forward passes from now on are timed by layer."""
        if on and self._times is None and self.anatomy is not None:
            self._times = LayerTimes(self.module, self.anatomy.chain, first=self.first, last=self.last, device=self.device)
        elif not on and self._times is not None:
            self._times.close()
            self._times = None

    @property
    def layers_s(self) -> dict[int, float]:
        """Layer -> its forward pass, where they are timed."""
        return self._times.means_s() if self._times is not None else {}

    @property
    def is_first(self) -> bool:
        """Whether it receives nothing."""
        return self._split is None or self._split.is_first

    @property
    def is_last(self) -> bool:
        """Whether it ends with the loss."""
        return self._split is None or self._split.is_last

    def forward(self, received: Sequence[torch.Tensor], inputs: Any, *, step: int, samples: Sequence[int], weight: float) -> Passed:
        """Run a micro-batch.

        Args:
            received: From the stage before.
            inputs: The model's inputs for the samples.
            step: Number of the step.
            samples: Their numbers, counted from the beginning of the job.
            weight: What the loss of the last stage is multiplied by; 0 where the micro-batch holds no label: its loss is not a number.
        """
        received = [self._cast(one.to(self.device)) for one in received]
        program = dataclasses.replace(self._program, inputs=tree.mapped(inputs, lambda one: self._cast(one.to(self.device))))
        if self._randomness is not None:
            self._randomness.begin(step=step, samples=samples)
        watched = self._times.watched() if self._times is not None else contextlib.nullcontext()
        with self.around("forward"), self._modes(), watched:
            ran = Ran([_loss(program)], []) if self._split is None else self._split.run(received, loss=lambda: _loss(program))
            sent = ran.sent
            if self.is_last:
                sent = [sent[0] * weight if weight else sent[0].nan_to_num() * 0.0]
        return Passed(received, ran.leaves, sent)

    def backward(self, passed: Passed, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Add to the gradients of the weights; returns those of what was received."""
        with self.around("backward"):
            if self.is_last:
                torch.autograd.backward(passed.sent)
            else:
                learnt = [(one, grad) for one, grad in zip(passed.sent, gradients, strict=True) if one.requires_grad]
                if learnt:  # none where all layers up to here are frozen
                    torch.autograd.backward([one for one, _ in learnt], [grad.to(one.device, one.dtype) for one, grad in learnt])
        pairs_back = zip(passed.received, passed.leaves, strict=True)
        return [torch.zeros_like(one) if leaf is None or leaf.grad is None else leaf.grad for one, leaf in pairs_back]

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    @contextlib.contextmanager
    def _modes(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.dtype == torch.float64:
                stack.enter_context(_Wide())
            if self._randomness is not None:
                stack.enter_context(self._randomness)
            yield


def dissect(job: Job, *, whole: bool) -> Anatomy | None:
    """The anatomy of a job's model; None where it cannot be had and ``whole`` says that nobody needs it.

    The model runs on tensors without data; one whose Python looks at values runs on real ones, which takes its memory on the host.

    Raises:
        BadPlan: The model cannot be cut, or has another number of blocks than the plan says.
    """
    inputs = job.data.batch([0])
    try:
        try:
            with without_data() as mode:
                return _dissected(job, job.model.shapes(), tree.mapped(inputs, mode.from_tensor))
        except faults.DATA_DEPENDENT:
            program = job.model.empty()
            job.model.fill(program.module, frozenset(name for name, _ in program.module.named_parameters()), seed=job.seed)
            return _dissected(job, program, inputs)
    except Uncuttable:
        if whole:
            return None
        raise


def _dissected(job: Job, program: Program, inputs: Any) -> Anatomy:
    chain = find_chain(program.module)
    if chain is None:
        raise Uncuttable("SP-MIX-100", where=job.model.name)
    if len(chain.names) != job.plan.layers:
        raise BadPlan("SP-MIX-105", where=job.model.name, found=len(chain.names), due=job.plan.layers)
    bound = dataclasses.replace(program, inputs=inputs)
    return anatomy(program.module, chain, loss=lambda: _loss(bound), where=job.model.name)


def _loss(program: Program) -> torch.Tensor:
    loss: torch.Tensor = program.loss_of(program.call())
    return loss


def _moved(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Buffers on the device; floating ones keep their precision unless the job computes in fp64."""
    for owner in module.modules():
        for attribute, one in list(owner._buffers.items()):
            if one is not None and one.device.type != "meta":
                wide = dtype == torch.float64 and one.is_floating_point()
                owner._buffers[attribute] = one.to(device=device, dtype=dtype if wide else None)
    return module


_NARROW = {torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64}


class _Wide(TorchFunctionMode):
    """A job in fp64 computes in nothing less, whatever dtype a model names inside (losses and norms are often cast to fp32)."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16):
            return args[0].double()
        return func(*(_widened(one) for one in args), **{name: _widened(one) for name, one in (kwargs or {}).items()})


def _widened(value: Any) -> Any:
    return _NARROW.get(value, value) if isinstance(value, torch.dtype) else value
