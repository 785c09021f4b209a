"""Cost of one layer on one chip for every local shape that occurs among the plans.

Times are at nominal rates (dense peak times shape efficiency, nominal bandwidth); the efficiencies that evidence gives
divide them later, in combine.py. Each op is billed to what limits it under reference efficiencies: the matrix unit or
the memory (roofline, Williams et al., CACM 2009). Shape legend: U = distinct local shapes (tp, cp, ep, micro-batch,
sequence-parallel).

Backward: two products per matmul (input and weight gradient; Narayanan et al., arXiv:2104.04473, appendix), 2.5 forward
passes for a fused attention core (it recomputes the scores; Dao, arXiv:2307.08691, section 4.1), three passes against two
for memory-bound ops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sapper.predict.arrays import Bools, Floats, Ints
from sapper.predict.device import Device
from sapper.predict.job import TrainJob
from sapper.predict.shapes import shape_efficiency
from sapper.workloads.op import DTYPE_BYTES, MATRIX_KINDS, AttentionShape, Block, Op, Unfused

REFERENCE_MATMUL = 0.75
"""Efficiency at which an op is judged compute- or memory-bound."""
REFERENCE_BANDWIDTH = 0.8
ATTENTION_BACKWARD = 2.5
BACKWARD_MATMUL = 1.3
"""Time of a gradient's product over that of a forward product of the same FLOPs: it reads transposed operands, adds into fp32
gradients, and shares the chip with the gradients that are being reduced. Of 1.0, 1.15, 1.2 and 1.3 it leaves the least error on
left-out vendors (16.8, 15.7, 15.4, 14.8%) and the least noise in the fit; left-out chips do not tell them apart."""
BY_OP = ("fsdp",)
"""Stacks whose selective recomputation decides op by op, and not by parts of a layer."""
BY_NAME = ("xla",)
"""Stacks whose selective recomputation keeps the results of a layer's linear maps and repeats the rest, the attention core too: of its
output nothing is kept, and of the sum behind it the linear map that it is made of (MaxText, layers/decoders.py, minimal_policy)."""
ONE_BY_ONE = ("eager",)
"""Stacks that run each op of a program as a kernel of its own."""
CALLS_PER_KERNEL = 79 / 56
"""Calls that compute, for each kernel that is counted: of the traced layer that ``dispatch_s`` of data/prior.toml rests on."""
LOSS_PASSES = 3.0
"""Passes over the logits for each that a fused loss makes: a cross entropy of separate kernels casts to fp32, subtracts the
greatest, exponentiates, sums, divides, and undoes it backward, 46-52 bytes a logit against 15 (Megatron-LM,
megatron/mpu/cross_entropy.py)."""
BACKWARD_PASSES = 1.5
"""Traffic of the backward pass over the forward's, of memory-bound ops: the gradient and the input are read and a gradient
is written, where the forward reads one and writes one. A fused attention core reads five tensors and writes three where
its forward reads three and writes one."""
FUSED_BACKWARD_PASSES = 2.0
UNFUSED_KERNELS = 6.0
"""Kernels of an attention core that is not one: layout, scores, scaled and masked softmax, dropout, weighted sum, layout
(Megatron-LM, megatron/model/transformer.py of 2022, CoreAttention)."""
COLLECTIVE_KERNELS = 2.0
"""What issuing one collective costs the host, in kernels: its autograd function and the process group take about as long as a kernel of
a layer (traced without a device, beside the trace that ``dispatch_s`` of data/prior.toml rests on), stream events and the library's own
queue as long again."""
ODD_RATE = 0.5
"""Rate of a 16-bit product of which a row has an odd number of elements, on a GPU: it starts at any two bytes, where asynchronous copies
move at least four, so that libraries fall back on kernels of the generation before (``..._s1688_..._align1`` on A100), whose matrix
instruction is half as deep (PTX ISA, cp.async, and mma.m16n8k8 against m16n8k16)."""
SOFTMAX_MATRICES, SOFTMAX_LONGEST = 4, 2048
"""Megatron-LM's fused softmax takes multiples of four score matrices of up to 2,048 keys; others go through separate kernels in fp32
(megatron/model/fused_softmax.py of v2.5, custom_kernel_constraint)."""
SEPARATE_SOFTMAX_KERNELS = 4.0
"""Kernels of that path beside the softmax: cast, scale, mask, cast back (the same file)."""
SEPARATE_SOFTMAX_BYTES = 32.0
"""Bytes that it moves for each score beyond those of the fused kernel (4): cast 6, scale 8, mask 8, softmax 8, cast back 6."""
PADS_VOCAB = ("megatron",)
"""Stacks whose vocabulary is padded to a multiple of 128 on each tensor-parallel rank (megatron/tokenizer/tokenizer.py of v2.5,
_vocab_size_with_padding), so that no rank has an odd share. The columns that this adds, of the head alone, are not counted."""
FUSED_SOFTMAX = ("megatron",)
"""Stacks that have that kernel."""


@dataclass(frozen=True)
class Local:
    """Local shapes: how a layer is cut and how large a micro-batch is."""

    tp: Ints
    cp: Ints
    ep: Ints
    micro_batch: Ints
    sequence_parallel: Bools

    @property
    def rows(self) -> Floats:
        """Micro-batch over context-parallel degree: what multiplies the tokens of one sequence."""
        return np.asarray(self.micro_batch / self.cp, float)

    @property
    def sequence_cut(self) -> Floats:
        """By how much norms and residuals are cut."""
        return np.where(self.sequence_parallel, self.tp, 1).astype(float)

    def cut(self, shard: str) -> Floats:
        """By how much an op of that shard is cut over the tensor-parallel group."""
        if shard in ("column", "row", "heads", "vocab"):
            return self.tp.astype(float)
        return self.sequence_cut if shard == "sequence" else np.ones(len(self.tp))


@dataclass
class Costs:
    """What one layer costs one chip; each array has length U.

    Index 0 of the paired arrays is the forward pass, 1 the backward.
    """

    matmul_s: list[Floats]
    low_s: list[Floats]
    """Matmul time in the low precision (fp8), apart from ``matmul_s``."""
    attention_s: list[Floats]
    memory_s: list[Floats]
    kernels: list[Floats]
    again_attention_s: Floats
    again_memory_s: Floats
    again_matmul_s: Floats
    again_low_s: Floats
    """What selective recomputation repeats: an unfused attention core (arXiv:2205.05198, section 5); with a fused core, whose
    memory is small, the norms and activation functions, from which the inputs of the matmuls behind them come back."""
    reduce_bytes: Floats
    """Activation bytes that the tensor-parallel group reduces in the forward pass (full tensor per rank)."""
    routed_bytes: Floats
    """Bytes that one chip sends to the experts of others in one direction of the forward pass."""
    keys_bytes: Floats
    """Keys and values of the local sequence part, which context parallelism passes round."""
    boundary_bytes: Floats
    """The activation that enters the layer."""
    saved_bytes: list[Floats]
    """Kept for the backward pass under recomputation none, selective, full."""
    dense_params: Floats
    expert_params: Floats
    flops: Floats
    """Executed by one chip, forward, no recomputation."""

    @classmethod
    def zero(cls, size: int) -> Costs:
        """Costs of nothing."""

        def empty() -> Floats:
            return np.zeros(size)

        return cls(
            matmul_s=[empty(), empty()],
            low_s=[empty(), empty()],
            attention_s=[empty(), empty()],
            memory_s=[empty(), empty()],
            kernels=[empty(), empty()],
            again_attention_s=empty(),
            again_memory_s=empty(),
            again_matmul_s=empty(),
            again_low_s=empty(),
            reduce_bytes=empty(),
            routed_bytes=empty(),
            keys_bytes=empty(),
            boundary_bytes=empty(),
            saved_bytes=[empty(), empty(), empty()],
            dense_params=empty(),
            expert_params=empty(),
            flops=empty(),
        )

    def plus(self, other: Costs, *, times: float = 1.0) -> Costs:
        """These costs and ``times`` those of ``other``."""
        total = Costs.zero(len(self.flops))
        for name in self.__dataclass_fields__:
            mine, more = getattr(self, name), getattr(other, name)
            pairs = zip(mine, more, strict=True) if isinstance(mine, list) else None
            setattr(total, name, mine + times * more if pairs is None else [a + times * b for a, b in pairs])
        return total


def block_costs(block: Block, local: Local, *, device: Device, job: TrainJob) -> Costs:
    """Costs of one layer of ``block`` on one chip."""
    costs = Costs.zero(len(local.tp))
    width = DTYPE_BYTES[job.workload.dtype]
    tokens = job.workload.seq_len
    costs.boundary_bytes = block.hidden_size * tokens * width * local.rows / local.sequence_cut
    fused = all(op.attention is None or op.attention.fused for op in block.ops)
    before = ""
    for op in block.ops:
        _add(op, costs, local, device=device, job=job, width=width)
        _keep(op, costs, local, device=device, job=job, fused=fused, before=before)
        before = before if op.kind == "matmul" else op.kind
    if block.role == "layer" and job.stack in BY_OP:
        _every_second(block, costs, local, width=width)
    if block.role != "layer":
        costs.saved_bytes[2] = costs.saved_bytes[0]
    else:
        costs.saved_bytes[2] = costs.boundary_bytes
    if block.experts:
        costs.routed_bytes = block.experts_per_token * block.hidden_size * tokens * width * local.rows / local.sequence_cut
    return costs


def _every_second(block: Block, costs: Costs, local: Local, *, width: float) -> None:
    """Selective recomputation op by op: the layer keeps its input, the output of its attention core and that of every second
    matmul; the other matmuls and all that is memory-bound are repeated (torchtitan, distributed/activation_checkpoint.py)."""
    costs.saved_bytes[1] = costs.boundary_bytes
    for op in block.ops:
        share = 1.0 if op.core else 0.5 if op.kind in MATRIX_KINDS else 0.0
        costs.saved_bytes[1] = costs.saved_bytes[1] + share * op.output_bytes * local.rows / local.cut(op.shard)
    costs.again_matmul_s = 0.5 * costs.matmul_s[0]
    costs.again_low_s = 0.5 * costs.low_s[0]


def _add(op: Op, costs: Costs, local: Local, *, device: Device, job: TrainJob, width: float) -> None:
    rows, cut = local.rows, local.cut(op.shard)
    params = op.params / (local.tp if op.shard in ("column", "row", "vocab", "heads") else np.ones(len(rows)))
    if op.expert:
        costs.expert_params = costs.expert_params + params / local.ep
    else:
        costs.dense_params = costs.dense_params + params
    costs.flops = costs.flops + op.flops * rows / cut
    if op.reduces:
        costs.reduce_bytes = costs.reduce_bytes + op.output_bytes * rows
        issued = np.where(local.tp > 1, COLLECTIVE_KERNELS, 0.0)
        costs.kernels[0], costs.kernels[1] = costs.kernels[0] + issued, costs.kernels[1] + issued
    if op.is_attention_core:
        _attention(op, costs, local, device=device, job=job, width=width)
    elif op.is_product:
        _matmul(op, costs, local, device=device, job=job, width=width)
    else:
        size = (op.input_bytes + op.output_bytes) * rows / cut + op.weight_bytes
        seconds = size * (LOSS_PASSES if op.kind == "loss" else 1.0) / device.bandwidth_bytes_per_s
        launched = float(op.is_launched)
        for at, (traffic, kernels) in enumerate(_one_by_one(job.workload.unfused) if job.stack in ONE_BY_ONE else _FUSED):
            costs.memory_s[at] = costs.memory_s[at] + traffic * seconds
            costs.kernels[at] = costs.kernels[at] + kernels * launched


_FUSED = ((1.0, 1.0), (BACKWARD_PASSES, 1.0))
"""Traffic and kernels of a memory-bound op's forward and backward pass, over those of its fused forward kernel."""


def _one_by_one(unfused: Unfused | None) -> tuple[tuple[float, float], tuple[float, float]]:
    """The same where each op of the program is a kernel of its own, on average over the program; as fused where that is not known."""
    if unfused is None:
        return _FUSED
    moved, kernels = unfused.fused_bytes + LOSS_PASSES * unfused.fused_loss_bytes, unfused.fused_kernels * CALLS_PER_KERNEL
    if not moved or not kernels:
        return _FUSED
    forward, backward = zip(unfused.moved_bytes, unfused.calls, strict=True)
    return (forward[0] / moved, forward[1] / kernels), (backward[0] / moved, backward[1] / kernels)


def _keep(op: Op, costs: Costs, local: Local, *, device: Device, job: TrainJob, fused: bool, before: str) -> None:
    """What the op keeps for the backward pass, and what selective recomputation makes of it.

    A low-precision matmul keeps its input in that precision. A frozen weight needs no input at all, since it has no gradient
    (LoRA, arXiv:2106.09685, section 4.2).
    """
    kept = op.saved_bytes * local.rows / local.cut(op.saved_shard)
    if op.kind == "matmul":
        if op.low_precision and device.precision != device.wide_dtype:
            kept = kept * DTYPE_BYTES[device.precision] / DTYPE_BYTES[job.workload.dtype]
        if job.finetune == "lora" and not adapted(op, job):
            kept = kept * 0.0
    costs.saved_bytes[0] = costs.saved_bytes[0] + kept
    repeats_core = op.core and (not fused or job.stack in BY_NAME)
    remade = ("norm", "elementwise", "attention") if job.stack in BY_NAME else ("norm", "elementwise")
    cheap = fused and before in remade and op.kind == "matmul"
    if not cheap and (fused or not op.core):
        costs.saved_bytes[1] = costs.saved_bytes[1] + kept
    if repeats_core:
        costs.again_attention_s = costs.again_attention_s + op.flops * local.rows / local.cut(op.shard) / device.wide_flops_per_s
    if repeats_core or (fused and op.kind in ("norm", "elementwise")):
        size = (op.input_bytes + op.output_bytes) * local.rows / local.cut(op.shard)
        costs.again_memory_s = costs.again_memory_s + size / device.bandwidth_bytes_per_s


def adapted(op: Op, job: TrainJob) -> bool:
    """Whether LoRA adapts the op: linear layers of the attention, or all (arXiv:2106.09685, section 4.2)."""
    return op.trainable_lora and (job.lora_targets == "all" or not ("mlp" in op.name or op.expert))


def _attention(op: Op, costs: Costs, local: Local, *, device: Device, job: TrainJob, width: float) -> None:
    shape = op.attention
    assert shape is not None
    rows, cut = local.rows, local.cut(op.shard)
    compute = op.flops * rows / cut / device.wide_flops_per_s
    traffic = (op.input_bytes + op.output_bytes) * rows / cut / device.bandwidth_bytes_per_s
    back = ATTENTION_BACKWARD if op.backward_flops is None else op.backward_flops / max(op.flops, 1.0)
    costs.attention_s[0] = costs.attention_s[0] + compute
    costs.attention_s[1] = costs.attention_s[1] + back * compute
    costs.memory_s[0] = costs.memory_s[0] + traffic
    costs.memory_s[1] = costs.memory_s[1] + (FUSED_BACKWARD_PASSES if shape.fused else BACKWARD_PASSES) * traffic
    kernels: Floats | float = 1.0 if shape.fused else UNFUSED_KERNELS
    separate = separate_softmax(shape, local, job=job)
    if separate.any():
        scores = shape.heads * shape.q_len * shape.kv_len * rows / cut
        extra = np.where(separate, SEPARATE_SOFTMAX_BYTES * scores / device.bandwidth_bytes_per_s, 0.0)
        costs.memory_s[0] = costs.memory_s[0] + extra
        costs.memory_s[1] = costs.memory_s[1] + extra
        kernels = kernels + np.where(separate, SEPARATE_SOFTMAX_KERNELS, 0.0)
    costs.kernels[0] = costs.kernels[0] + kernels
    costs.kernels[1] = costs.kernels[1] + 2.0 * kernels
    keys = shape.kv_heads * (shape.qk_dim + shape.v_dim) * shape.kv_len * width
    costs.keys_bytes = costs.keys_bytes + keys * rows / np.minimum(local.tp, shape.kv_heads)


def separate_softmax(shape: AttentionShape, local: Local, *, job: TrainJob) -> Bools:
    """Where an unfused attention core has no fused softmax for its score matrices."""
    if shape.fused or job.stack not in FUSED_SOFTMAX or DTYPE_BYTES[job.workload.dtype] > 2:
        return np.zeros(len(local.tp), bool)
    matrices = local.micro_batch * shape.heads // local.tp
    return np.asarray((matrices % SOFTMAX_MATRICES > 0) | (shape.kv_len > SOFTMAX_LONGEST), bool)


def _matmul(op: Op, costs: Costs, local: Local, *, device: Device, job: TrainJob, width: float) -> None:
    """Forward M x K x N; backward M x N x K (input gradient) and K x M x N (weight gradient)."""
    rows = local.rows
    m, n, k = op.m * rows, np.full(len(rows), float(op.n)), np.full(len(rows), float(op.k))
    groups = np.full(len(rows), float(max(op.groups, 1)))
    if op.expert:
        groups, m = groups / local.ep, m * local.ep
    elif op.shard == "heads":
        groups = groups / local.tp
    if op.shard in ("column", "vocab"):
        n = n / local.tp
    elif op.shard == "row":
        k = k / local.tp
    elif op.shard == "sequence":
        m = m / local.sequence_cut
    low = op.low_precision and device.precision != device.wide_dtype
    peak: Floats | float = device.peak_flops_per_s if low else device.wide_flops_per_s
    if device.unit.kind == "gpu" and DTYPE_BYTES[job.workload.dtype] == 2:
        padded = op.shard == "vocab" and job.vocab_padded and job.stack in PADS_VOCAB
        peak = peak * np.where((_odd(n) & (not padded)) | _odd(k), ODD_RATE, 1.0)
    # a convolution reads its image once, and not once for each place of its kernel as its implicit product would
    moved = (op.input_bytes + op.output_bytes) * rows / local.cut(op.shard) + op.weight_bytes if op.kind == "conv" else None
    forward = _bound(m, n, k, groups, peak=peak, device=device, width=width, moved=moved)
    inputs = _bound(m, k, n, groups, peak=peak, device=device, width=width, moved=moved)
    weights = (np.zeros(len(rows)),) * 2
    if job.finetune == "full":
        weights = _bound(k, n, m, groups, peak=peak, device=device, width=width, moved=moved)
    share = 1.0 if op.backward_flops is None else op.backward_flops / max(2.0 * op.flops, 1.0)
    target = costs.low_s if low else costs.matmul_s
    target[0] = target[0] + forward[0]
    target[1] = target[1] + BACKWARD_MATMUL * share * (inputs[0] + weights[0])
    costs.memory_s[0] = costs.memory_s[0] + forward[1]
    costs.memory_s[1] = costs.memory_s[1] + share * (inputs[1] + weights[1])
    costs.kernels[0] = costs.kernels[0] + 1.0
    costs.kernels[1] = costs.kernels[1] + (2.0 if job.finetune == "full" else 1.0)
    if job.finetune == "lora" and adapted(op, job):
        _adapter(costs, m, n, k, device=device, job=job, width=width)


def _odd(size: Floats) -> Bools:
    """Whether rows of so many elements start at odd places; what a cut does not divide is padded."""
    return np.asarray(size % 2.0 == 1.0, bool)


def _adapter(costs: Costs, m: Floats, n: Floats, k: Floats, *, device: Device, job: TrainJob, width: float) -> None:
    """The two thin products of a LoRA adapter (arXiv:2106.09685, equation 3): they read and write activations."""
    rank = float(job.lora_rank)
    traffic = (m * k + 2 * m * rank + 2 * m * n) * width / device.bandwidth_bytes_per_s
    flops = 2.0 * m * rank * (n + k) / device.wide_flops_per_s
    for pass_, times in ((0, 1.0), (1, 2.0)):
        costs.matmul_s[pass_] = costs.matmul_s[pass_] + times * flops
        costs.memory_s[pass_] = costs.memory_s[pass_] + times * traffic
        costs.kernels[pass_] = costs.kernels[pass_] + 2.0 * times


def _bound(
    m: Floats, n: Floats, k: Floats, groups: Floats, *, peak: Floats | float, device: Device, width: float, moved: Floats | None = None
) -> tuple[Floats, Floats]:
    """(matrix-unit time, memory time) of one product, one of the two zero: the op is billed to what limits it.

    ``moved`` is its traffic in bytes where that is not its three matrices.
    """
    compute = 2.0 * m * n * k * groups / (peak * shape_efficiency(m, n, k, groups=groups, unit=device.unit))
    traffic = ((m * k + k * n + m * n) * groups * width if moved is None else moved) / device.bandwidth_bytes_per_s
    by_compute = compute / REFERENCE_MATMUL >= traffic / REFERENCE_BANDWIDTH
    return np.where(by_compute, compute, 0.0), np.where(by_compute, 0.0, traffic)
