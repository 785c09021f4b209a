"""Token mixers that run in linear time: selective scans, state-space duality, delta rules, gated recurrences.

Each function makes the ops of one mixer of one sequence. The recurrence itself is one op of kind ``scan``; its FLOPs are
those of the algorithm that a fused kernel executes, by the formula of the paper that the function cites. Projections and
convolutions are matmuls and convs as everywhere. Depthwise convolutions are implicit GEMMs with one column a channel.

Letters: T = tokens, h = hidden, D = inner width, N = state size, H = heads, P = head dim, G = groups, Q = chunk length.
"""

from __future__ import annotations

from sapper.workloads.kit import FP32_BYTES, Kit
from sapper.workloads.op import Op

DELTA_CHUNK = 64
"""Tokens that the delta-rule kernels take at once (the reference of arXiv:2412.06464 and the library that serves it)."""


SKIP_FLOPS = 3
"""Of each token and channel beside a state-space recurrence: ``dt*x``, and ``D*x`` with its add (arXiv:2312.00752, algorithm 2)."""


def chunks(tokens: int, chunk: int) -> list[int]:
    """Lengths of the chunks that cover ``tokens``."""
    whole, rest = divmod(tokens, chunk)
    return [chunk] * whole + ([rest] if rest else [])


def scan(
    kit: Kit, name: str, *, flops: float, reads: float, writes: float, params: int, kept: float, state: float, full: float | None = None,
) -> Op:
    """The recurrence as one op.

    Args:
        kit: The sequence.
        name: Name inside the block.
        flops: FLOPs of the whole op.
        reads: Elements read.
        writes: Elements written.
        params: Weights that it owns.
        kept: Elements kept for the backward pass; states are recomputed (arXiv:2312.00752, section 3.3.2).
        state: Elements of the recurrent state, in fp32; decode reads and writes it, prefill writes it.
        full: FLOPs with the full square of each chunk, where it differs.
    """
    state_bytes = state * FP32_BYTES
    return Op(
        name=name, kind="scan", flops=float(flops), flops_full=None if full is None or full == flops else float(full),
        input_bytes=reads * kit.width + (state_bytes if kit.purpose == "decode" else 0.0), weight_bytes=params * kit.width,
        output_bytes=writes * kit.width + (state_bytes if kit.purpose != "train" else 0.0), params=params, shard="heads",
        saved_bytes=kept * kit.width if kit.purpose == "train" else 0.0, saved_shard="heads",
    )


def depthwise(kit: Kit, name: str, *, channels: int, kernel: int, bias: bool, silu: bool = True) -> tuple[Op, ...]:
    """A causal depthwise convolution over time and the SiLU after it."""
    conv = kit.conv(name, rows=kit.tokens, n=1, k=kernel, groups=channels, bias=bias, shard="column")
    # The kernel reads each input once, not once a tap.
    size_bytes = kit.tokens * channels * kit.width
    conv = _resized(conv, size_bytes, size_bytes if kit.purpose == "train" else 0.0)
    return (conv, kit.activation(f"{name}.act", channels, gated=False)) if silu else (conv,)


def _resized(op: Op, input_bytes: float, saved_bytes: float) -> Op:
    import msgspec

    return msgspec.structs.replace(op, input_bytes=input_bytes, saved_bytes=saved_bytes, saved_shard="column")


def gate(kit: Kit, name: str, width: int) -> Op:
    """``sigmoid(g) * x`` or ``silu(g) * x`` over ``width`` channels."""
    return kit.activation(name, width, gated=True)


def selective_flops(values: float, *, state: int) -> float:
    """FLOPs of the selective scan over ``values`` tokens times channels (arXiv:2312.00752, section 3.2).

    For each of them and each of N states: ``dt*A`` and its exponential (equation 4, 2 FLOPs), ``B*(dt*x)`` (1),
    ``h = Abar*h + Bbar*x`` (equation 2a, 2) and ``y = C*h`` (equation 2b, 2); and :data:`SKIP_FLOPS`.
    """
    return values * (7.0 * state + SKIP_FLOPS)


def mamba1(
    kit: Kit, prefix: str, *, hidden: int, inner: int, state: int, rank: int, kernel: int, bias: bool, conv_bias: bool, norms: bool = False,
) -> tuple[Op, ...]:
    """The Mamba mixer (arXiv:2312.00752, figure 3 and algorithm 2).

    Args:
        kit: The sequence.
        prefix: Prefix of the names.
        hidden: h.
        inner: D.
        state: N.
        rank: Width of the projection that makes the time step.
        kernel: Taps of the convolution.
        bias: Of the input and output projections.
        conv_bias: Of the convolution.
        norms: RMS norms over time step, B and C, with weights (Jamba).
    """
    t = kit.tokens
    ops = [
        kit.linear(f"{prefix}.in_proj", 2 * inner, hidden, bias=bias, lora=True),
        *depthwise(kit, f"{prefix}.conv1d", channels=inner, kernel=kernel, bias=conv_bias),
        # Its sum runs over the channels that are cut, so that the small result is reduced.
        kit.linear(f"{prefix}.x_proj", rank + 2 * state, inner, shard="row"),
    ]
    if norms:
        ops += [kit.norm(f"{prefix}.{part}_layernorm", size) for part, size in (("dt", rank), ("b", state), ("c", state))]
    return (
        *ops,
        kit.linear(f"{prefix}.dt_proj", inner, rank, bias=True),
        scan(
            kit, f"{prefix}.scan", flops=selective_flops(t * inner, state=state), reads=t * (2 * inner + 2 * state),
            writes=t * inner, params=inner * (state + 1), kept=t * (inner + 2 * state), state=inner * state,
        ),
        gate(kit, f"{prefix}.gate", inner),
        kit.linear(f"{prefix}.out_proj", hidden, inner, bias=bias, shard="row", lora=True),
    )


def ssd_flops(tokens: int, *, heads: int, head_dim: int, groups: int, state: int, chunk: int, decode: bool = False) -> float:
    """FLOPs of the state-space dual form (arXiv:2405.21060, section 6 and listing 1).

    Of each chunk of q tokens: scores ``C B^T`` (2 q^2 N, once a group), their product with x (2 q^2 P a head), the state
    that the chunk leaves (2 q N P), what the incoming state gives (2 q N P), and passing the state on (2 N P). The last chunk
    has the tokens that are left: the authors' kernels stop there and share the scores within a group (state-spaces/mamba at
    0742972, ``ssd_bmm.py``: ``chunk_size_limit``, one program a group). A single token runs the recurrence:
    ``h = a*h + B*(dt*x)`` (3 N P) and ``C h`` (2 N P).
    """
    if decode:
        return 5.0 * tokens * heads * state * head_dim
    return float(
        sum(2 * q * q * (groups * state + heads * head_dim) + heads * state * head_dim * (4 * q + 2) for q in chunks(tokens, chunk))
    )


def mamba2(
    kit: Kit, prefix: str, *, hidden: int, heads: int, head_dim: int, groups: int, state: int, kernel: int, chunk: int, bias: bool,
    conv_bias: bool, out_bias: bool | None = None, norm: bool = True,
) -> tuple[Op, ...]:
    """The Mamba-2 mixer (arXiv:2405.21060, section 7): one input projection for gate, x, B, C and time step.

    Args:
        kit: The sequence.
        prefix: Prefix of the names.
        hidden: h.
        heads: H; the inner width is H * P.
        head_dim: P.
        groups: G: heads of a group share B and C.
        state: N.
        kernel: Taps of the convolution.
        chunk: Q.
        bias: Of the input and output projections.
        conv_bias: Of the convolution.
        out_bias: Of the output projection; None: as ``bias``.
        norm: The gated RMS norm before the output projection.
    """
    t, inner = kit.tokens, heads * head_dim
    shared = 2 * groups * state
    flops = ssd_flops(t, heads=heads, head_dim=head_dim, groups=groups, state=state, chunk=chunk, decode=kit.purpose == "decode")
    after = (kit.norm(f"{prefix}.out_norm", inner, shard="heads"),) if norm else ()
    return (
        kit.linear(f"{prefix}.in_proj", 2 * inner + shared + heads, hidden, bias=bias, lora=True),
        *depthwise(kit, f"{prefix}.conv1d", channels=inner + shared, kernel=kernel, bias=conv_bias),
        scan(
            kit, f"{prefix}.scan", flops=flops + SKIP_FLOPS * t * inner, reads=t * (inner + shared + heads), writes=t * inner,
            # dt_bias, A_log and D, one of each a head.
            params=3 * heads, kept=t * (inner + shared + heads), state=inner * state,
        ),
        gate(kit, f"{prefix}.gate", inner),
        *after,
        kit.linear(f"{prefix}.out_proj", hidden, inner, bias=bias if out_bias is None else out_bias, shard="row", lora=True),
    )


def delta_rule_flops(tokens: int, *, heads: int, key_dim: int, value_dim: int, chunk: int = DELTA_CHUNK, decode: bool = False) -> float:
    """FLOPs of the chunked (gated) delta rule (arXiv:2406.06484, section 3.2; with gates arXiv:2412.06464, section 3.3).

    Of each head and chunk of q tokens: ``K K^T`` and ``Q K^T`` (2 q^2 K each), the triangular system of the UT transform
    solved for keys and values (q^2 (K + V)), scores times values (2 q^2 V), and three products with the K x V state: what
    it predicts, what it answers, what it learns (2 q K V each). A single token: S k, S q and a rank-one update (6 K V) and
    the decay (K V).
    """
    if decode:
        return 7.0 * tokens * heads * key_dim * value_dim
    return float(
        heads * sum(q * q * (5 * key_dim + 3 * value_dim) + 6 * q * key_dim * value_dim for q in chunks(tokens, chunk))
    )


def delta_core(kit: Kit, prefix: str, *, key_heads: int, value_heads: int, key_dim: int, value_dim: int, params: int, gates: int) -> Op:
    """The delta rule itself; ``gates`` are the decay values of a token (one a head, or one a key channel)."""
    t = kit.tokens
    flops = delta_rule_flops(t, heads=value_heads, key_dim=key_dim, value_dim=value_dim, decode=kit.purpose == "decode")
    inputs = t * (2 * key_heads * key_dim + value_heads * (value_dim + 1) + gates)
    return scan(
        kit, f"{prefix}.scan", flops=flops, reads=inputs, writes=t * value_heads * value_dim, params=params, kept=inputs,
        state=value_heads * key_dim * value_dim,
    )


def lightning_flops(tokens: int, *, heads: int, head_dim: int, block: int, decode: bool = False, causal: bool = True) -> float:
    """FLOPs of lightning attention (arXiv:2401.04658, algorithm 1).

    Of each head and block of b tokens: ``Q K^T`` and its product with V (4 b^2 d, half of it under the causal mask), the
    incoming state's answer ``Q KV`` and the update ``K^T V`` (2 b d^2 each). A single token: update and answer.
    """
    if decode:
        return 4.0 * tokens * heads * head_dim * head_dim
    square = sum(2 * b * (b + 1) if causal else 4 * b * b for b in chunks(tokens, block))
    return float(heads * (square * head_dim + 4 * tokens * head_dim * head_dim))


def lightning(kit: Kit, prefix: str, *, hidden: int, heads: int, head_dim: int, block: int) -> tuple[Op, ...]:
    """Lightning attention as MiniMax-01 has it (arXiv:2501.08313, section 2.2): SiLU on q, k, v, an RMS norm and a gate."""
    t, inner = kit.tokens, heads * head_dim
    decode = kit.purpose == "decode"
    flops, full = (
        lightning_flops(t, heads=heads, head_dim=head_dim, block=block, decode=decode, causal=causal) for causal in (True, False)
    )
    return (
        kit.linear(f"{prefix}.qkv_proj", 3 * inner, hidden, lora=True),
        kit.activation(f"{prefix}.act", 3 * inner, gated=False),
        scan(
            kit, f"{prefix}.scan", flops=flops, full=full, reads=3 * t * inner, writes=t * inner, params=0, kept=3 * t * inner,
            state=heads * head_dim * head_dim,
        ),
        kit.norm(f"{prefix}.out_norm", inner, shard="heads"),
        kit.linear(f"{prefix}.output_gate", inner, hidden, keep_input=False),
        gate(kit, f"{prefix}.gate", inner),
        kit.linear(f"{prefix}.out_proj", hidden, inner, shard="row", lora=True),
    )


def rg_lru(kit: Kit, prefix: str, *, hidden: int, width: int, heads: int, kernel: int) -> tuple[Op, ...]:
    """Griffin's recurrent block (arXiv:2402.19427, section 2.3 and figure 2) with the RG-LRU (equations 1-4).

    The recurrence costs for each token and channel: ``a = exp(-8 r softplus(lambda))`` (3), ``sqrt(1 - a^2)`` (3), the gated
    input (2), ``h = a*h + x`` (2): 10 T W.
    """
    t, block = kit.tokens, width // heads
    return (
        kit.linear(f"{prefix}.linear_y", width, hidden, bias=True, lora=True),
        kit.activation(f"{prefix}.act", width, gated=False),
        kit.linear(f"{prefix}.linear_x", width, hidden, bias=True, keep_input=False, lora=True),
        *depthwise(kit, f"{prefix}.conv_1d", channels=width, kernel=kernel, bias=True, silu=False),
        kit.linear(f"{prefix}.rg_lru.input_gate", block, block, groups=heads, bias=True),
        kit.linear(f"{prefix}.rg_lru.recurrent_gate", block, block, groups=heads, bias=True, keep_input=False),
        scan(
            kit, f"{prefix}.rg_lru.scan", flops=10 * t * width, reads=3 * t * width, writes=t * width, params=width, kept=2 * t * width,
            state=width,
        ),
        kit.elementwise(f"{prefix}.multiply", reads=2 * t * width, writes=t * width, flops=t * width, kept=2 * t * width, shard="column"),
        kit.linear(f"{prefix}.linear_out", hidden, width, bias=True, shard="row", lora=True),
    )


def short_conv(kit: Kit, prefix: str, *, hidden: int, kernel: int, bias: bool) -> tuple[Op, ...]:
    """The gated short convolution of LFM2 (arXiv:2511.23404, section 2): ``C * conv(B * x)`` between two projections."""
    size = kit.tokens * hidden

    def product(name: str) -> Op:
        return kit.elementwise(f"{prefix}.{name}", reads=2 * size, writes=size, flops=size, kept=2 * size, shard="column")

    return (
        kit.linear(f"{prefix}.in_proj", 3 * hidden, hidden, bias=bias, lora=True),
        product("gate_in"),
        *depthwise(kit, f"{prefix}.conv", channels=hidden, kernel=kernel, bias=bias, silu=False),
        product("gate_out"),
        kit.linear(f"{prefix}.out_proj", hidden, hidden, bias=bias, shard="row", lora=True),
    )


def delta_net(
    kit: Kit, prefix: str, *, hidden: int, key_heads: int, value_heads: int, key_dim: int, value_dim: int, kernel: int,
    projections: tuple[tuple[str, int], ...],
) -> tuple[Op, ...]:
    """Gated DeltaNet (arXiv:2412.06464, figure 1): convolved q, k, v, the gated delta rule, a gated norm a head.

    Args:
        kit: The sequence.
        prefix: Prefix of the names.
        hidden: h.
        key_heads: Heads of q and k.
        value_heads: Heads of v, decay and writing strength.
        key_dim: Head dim of q and k.
        value_dim: Head dim of v.
        kernel: Taps of the convolution.
        projections: Name and width of each input projection, as the family packs them.
    """
    inner = value_heads * value_dim
    core = delta_core(
        kit, prefix, key_heads=key_heads, value_heads=value_heads, key_dim=key_dim, value_dim=value_dim, gates=value_heads,
        # dt_bias and A_log, one of each a value head.
        params=2 * value_heads,
    )
    return (
        *(kit.linear(f"{prefix}.{name}", n, hidden, keep_input=index == 0, lora=n >= inner) for index, (name, n) in enumerate(projections)),
        *depthwise(kit, f"{prefix}.conv1d", channels=2 * key_heads * key_dim + inner, kernel=kernel, bias=False),
        core, kit.norm(f"{prefix}.out_norm", value_dim, heads=value_heads, shard="heads"), gate(kit, f"{prefix}.gate", inner),
        kit.linear(f"{prefix}.out_proj", hidden, inner, shard="row", lora=True),
    )


def kimi_delta(kit: Kit, prefix: str, *, hidden: int, heads: int, head_dim: int, kernel: int) -> tuple[Op, ...]:
    """Kimi Delta Attention (arXiv:2510.26692, section 3): the delta rule with a decay for each channel of the key.

    Decay and output gate come from low-rank projections of rank ``head_dim``.
    """
    inner = heads * head_dim
    core = delta_core(
        kit, prefix, key_heads=heads, value_heads=heads, key_dim=head_dim, value_dim=head_dim, gates=inner, params=inner + heads,
    )
    return (
        *(kit.linear(f"{prefix}.{part}_proj", inner, hidden, keep_input=part == "q", lora=part != "k") for part in "qkv"),
        *depthwise(kit, f"{prefix}.conv1d", channels=3 * inner, kernel=kernel, bias=False),
        kit.linear(f"{prefix}.f_a_proj", head_dim, hidden, shard="replicated", keep_input=False),
        kit.linear(f"{prefix}.f_b_proj", inner, head_dim),
        kit.linear(f"{prefix}.b_proj", heads, hidden, keep_input=False),
        core,
        kit.linear(f"{prefix}.g_a_proj", head_dim, hidden, shard="replicated", keep_input=False),
        kit.linear(f"{prefix}.g_b_proj", inner, head_dim),
        kit.norm(f"{prefix}.o_norm", head_dim, heads=heads, shard="heads"), gate(kit, f"{prefix}.gate", inner),
        kit.linear(f"{prefix}.o_proj", hidden, inner, shard="row", lora=True),
    )
