"""Profiles: our own file, Sailor's, and the problem that they make."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sapper.errors import BadFile, BadValue, SapperError
from sapper.mix.objective import score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Shape
from sapper.mix.profiles import HeldBytes, LayerCost, Profile, Timed, problem_of, read_own, read_profiles, write_own
from sapper.mix.profiles.links import Flat, MeasuredNetwork, Polynomial
from sapper.mix.profiles.problem import Fleet
from sapper.mix.profiles.profile import check
from sapper.mix.profiles.sailor import read_sailor, read_sailor_links
from sapper.mix.profiles.sailor_judge import judged_problem
from sapper.mix.states import held_params, states_bytes

KINDS = ("embedding", "block", "head")


def profile(device: str = "cpu", *, speed: float = 1.0, **changes: object) -> Profile:
    def layers(size: int) -> dict[str, LayerCost]:
        return {kind: LayerCost(forward_s=size / speed, backward_s=2 * size / speed, saved_bytes=size * 10.0) for kind in KINDS}

    made = Profile(
        model="toy", device=device, seq_len=8, layers=("embedding", "block", "block", "head"), boundary_bytes=dict.fromkeys(KINDS, 4.0),
        timed=tuple(Timed(micro_batch=size, layers=layers(size)) for size in (1, 2)),
        held=(HeldBytes(params=dict.fromkeys(KINDS, 5), update_s=dict.fromkeys(KINDS, 0.1)),), source="test",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


BACKWARDS = LayerCost(forward_s=-1.0, backward_s=0.0, saved_bytes=0.0)
NETWORK = MeasuredNetwork(
    chips_per_node={"a": 4, "b": 4}, inside={("a", 4): Flat(100.0), ("b", 4): Flat(50.0)},
    between={("a", "b", 1): Flat(1.0), ("a", "b", 4): Flat(4.0), ("a", "a", 1): Flat(2.0)}, nodes={"a": 2, "b": 1},
)  # fmt: skip


def test_a_profile_survives_its_file(tmp_path: Path) -> None:
    write_own(tmp_path / "p.json", profile())

    assert read_own(tmp_path / "p.json") == profile()
    assert read_profiles(tmp_path / "p.json") == {"cpu": profile()}


def test_profiles_make_a_problem() -> None:
    fleets = [Fleet("a", profile("fast", speed=2.0), 8, 4, 1000.0), Fleet("b", profile("slow"), 4, 4, 1000.0)]
    problem = problem_of(fleets, NETWORK, global_batch=6)
    pipelines = tuple(Pipeline(stages=(Stage(group=name, first=0, last=4),), micro_batch=1, micro_batches=3) for name in "ab")

    assert problem.times[Shape("a", 1, 2)].forward_s.tolist() == [1.0] * 4
    assert problem.micro_batches == (1, 2)
    # three micro-batches of four layers on the slower chip, a ring of 4 x 5 fp32 gradients over the link, the update
    assert score(problem, pipelines).step_s == pytest.approx(3 * 4 * 3.0 + 80.0 / 1.0 + 0.4)


def test_what_leaves_a_node_shares_its_way_out() -> None:
    assert NETWORK.all_reduce_s(8.0, {("a", 4): 1, ("b", 4): 1}) == pytest.approx(8.0 / 4.0)
    assert NETWORK.all_reduce_s(8.0, {("b", 2): 2}) == pytest.approx(8.0 / 2 / 50.0)
    assert NETWORK.all_reduce_s(8.0, {("b", 4): 1}) == 0.0
    assert NETWORK.send_s(8.0, source="a", target="a") == 4.0
    assert NETWORK.send_s(8.0, source="b", target="b") == 8.0 / 50.0
    assert NETWORK.send_s(8.0, source="a", target="b", tp=4) == 2.0
    assert dataclasses.replace(NETWORK, whole=True).send_s(8.0, source="a", target="b", tp=4) == 8.0


def test_a_fitted_curve_stays_within_what_was_measured() -> None:
    curve = Polynomial(coefficients=(1.0, 2.0, 3.0), most_bytes_per_s=10e9)

    assert curve.bytes_per_s(2e6) == pytest.approx(6e9)
    assert curve.bytes_per_s(1e12) == 10e9
    assert 0 < Polynomial(coefficients=(1.0, 0.0), most_bytes_per_s=1e9).bytes_per_s(10.0) < 1e7


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("SP-MIX-052", {"format": "sapper-mix-profile/0"}),
        ("SP-MIX-053", {"layers": ("embedding", "head")}),
        ("SP-MIX-054", {"layers": ("embedding", "other", "head")}),
        ("SP-MIX-055", {"boundary_bytes": {}}),
        ("SP-MIX-056", {"timed": (Timed(micro_batch=1, layers=dict.fromkeys(KINDS, BACKWARDS)),)}),
    ],
)
def test_a_profile_that_cannot_be_meant_is_refused(code: str, changes: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(msgspec.json.encode(profile(**changes)))
    with pytest.raises(BadFile) as caught:
        read_own(tmp_path / "p.json")

    assert caught.value.code == code


def test_profiles_of_two_models_are_refused() -> None:
    other = Fleet("b", profile("slow", seq_len=16), 4, 4, 1000.0)
    with pytest.raises(BadValue, match="seq_len"):
        problem_of([Fleet("a", profile(), 8, 4, 1000.0), other], NETWORK, global_batch=6)


@pytest.fixture
def sailor(tmp_path: Path) -> Path:
    """Two blocks at two degrees, in the shape of Sailor's files."""
    layers = {str(layer): [0.1, 0.2, 0.05] for layer in range(4)}
    info = {
        tp: {str(n): {"params_floats": 40 // int(tp), "act_mem_floats": 8, "act_output_floats": 2} for n in range(4)} for tp in ("1", "2")
    }
    (tmp_path / "profiles_tmp.json").write_text(json.dumps({"OPT-350": {"V100-16": {"1": {"1": layers, "2": layers}}}}))
    (tmp_path / "llm_info.json").write_text(json.dumps({"OPT-350": info}))
    curve = [[0.0, 0.0, 2.0], 2e9]
    (tmp_path / "between.json").write_text(json.dumps({"us-central1-a": {"V100-16": {"1": {"us-central1-a": {"V100-16": {"1": curve}}}}}}))
    (tmp_path / "inside.json").write_text(json.dumps({"V100-16": {"4": curve}}))
    return tmp_path


def test_sailors_files_are_read(sailor: Path) -> None:
    found = read_sailor(sailor / "profiles_tmp.json", model="OPT-350")["V100-16"]

    assert found.layers == ("embedding", "block 1", "block 2", "head")
    assert found.tps == (1, 2)
    assert found.held[1].params["block 1"] == 20
    assert sum(found.held[0].update_s[kind] for kind in found.layers) == pytest.approx(0.05)
    assert found.boundary_bytes["block 1"] == 8.0
    assert found == read_profiles(sailor / "profiles_tmp.json", format="sailor", model="OPT-350")["V100-16"]


def test_sailors_links_are_read(sailor: Path) -> None:
    network = read_sailor_links(sailor / "between.json", sailor / "inside.json", groups={"v": "V100-16"}, nodes={"v": 2}, per_node=4)

    assert network.send_s(4e9, source="v", target="v") == pytest.approx(2.0)


def test_sailors_judge_counts_one_ring_on_the_slowest_link_and_24_bytes_a_weight(sailor: Path) -> None:
    found = judged_problem(
        sailor / "profiles_tmp.json", sailor / "between.json", model="OPT-350", chips={"V100-16": 4}, capacity_bytes={"V100-16": 16e9},
        per_node=4, global_batch=8,
    )  # fmt: skip
    stage = Stage(group="V100-16", first=0, last=2)

    # 2 GB/s; three hops of a third each way
    assert found.network.all_reduce_s(3e9, {("V100-16", 1): 3}) == pytest.approx(2.0)
    assert found.network.all_reduce_s(3e9, {("V100-16", 1): 1}) == 0.0
    assert states_bytes(found, stage, shards=1) == 24.0 * held_params(found, stage)
    assert found.groups[0].capacity_bytes == 16e9


def test_sailors_judge_names_a_gpu_without_curves(sailor: Path) -> None:
    (sailor / "between.json").write_text(json.dumps({"us-central1-a": {}}))

    with pytest.raises(SapperError) as caught:
        judged_problem(
            sailor / "profiles_tmp.json", sailor / "between.json", model="OPT-350", chips={"V100-16": 4}, capacity_bytes={"V100-16": 16e9},
            per_node=4, global_batch=8,
        )  # fmt: skip

    assert caught.value.code == "SP-MIX-058"


@pytest.mark.parametrize(("code", "model", "format"), [("SP-MIX-059", "GPT-9", "sailor"), ("SP-MIX-060", "OPT-350", "other")])
def test_what_a_file_does_not_hold_is_named(code: str, model: str, format: str, sailor: Path) -> None:
    with pytest.raises(SapperError) as caught:
        read_profiles(sailor / "profiles_tmp.json", format=format, model=model)

    assert caught.value.code == code


def test_a_truncated_file_of_sailors_is_refused(sailor: Path) -> None:
    whole = json.loads((sailor / "profiles_tmp.json").read_text())
    whole["OPT-350"]["V100-16"]["1"]["1"]["2"] = [0.1]
    (sailor / "profiles_tmp.json").write_text(json.dumps(whole))
    with pytest.raises(BadFile) as caught:
        read_sailor(sailor / "profiles_tmp.json", model="OPT-350")

    assert caught.value.code == "SP-MIX-058"


def metis(folder: Path) -> Path:
    for tp, size in ((1, 1), (2, 2)):
        table = {
            "model": {"model_name": "GPT3", "parameters": {"parameters_per_layer_bytes": [80, 40, 80]}},
            "execution_time": {"layer_compute_total_ms": [1.0, 30.0, 2.0], "optimizer_time_ms": 6.0},
            "execution_memory": {"layer_memory_total_mb": [1, 2, 3]},
        }
        (folder / f"DeviceType.A100_tp{tp}_bs{size}.json").write_text(json.dumps(table))
    return folder


def varuna(folder: Path) -> Path:
    cost = {"forward": 0.01, "backward": 0.02, "params_bytes": 80, "mem_required": 100.0, "output_activation": 16.0}
    (folder / "profile_2.json").write_text(json.dumps({str(layer): {"1": cost, "2": cost} for layer in range(3)}))
    return folder


def piper(folder: Path) -> Path:
    way = {"id": "vanilla", "timePerSample": 0.03, "parameterSize": 80, "memoryUsageA": 20, "memoryUsageB": 400}
    nodes = [{"id": layer, "TMPCs": {"1": [way], "4": [way]}} for layer in range(3)]
    edges = [{"sourceId": layer, "destId": layer + 1, "communicationCost": 8} for layer in range(2)]
    (folder / "profile.json").write_text(json.dumps({"2": {"nodes": nodes, "edges": edges}}))
    return folder / "profile.json"


def amp(folder: Path) -> Path:
    np.save(folder / "gpt2_P3_2.npy", np.array([0.1, 0.2, *[1.0] * 12, 0.0, 0.0, 0.5, 0.1]))
    return folder


def galvatron(folder: Path) -> Path:
    (folder / "compute_profile.json").write_text(json.dumps({"layertype_0": 6.0, "layertype_other_0": 14.0}))
    return folder


@pytest.mark.parametrize(
    ("format", "make", "model", "shapes", "block", "params", "output"),
    [
        ("metis", metis, "", [(1, 1), (2, 2)], 0.030, 10, 0.0),
        ("varuna", varuna, "", [(2, 1), (2, 2)], 0.030, 20, 16.0),
        ("piper", piper, "", [(1, 2), (4, 2)], 0.030, 20, 8.0),
        ("amp", amp, "config", [(2, 1)], 3.0, None, 1024 * 64 * 4.0),
        ("galvatron", galvatron, "config", [(1, 1)], 0.018, None, 2048 * 64 * 4.0),
    ],
)
def test_the_peers_formats_are_read(
    format: str, make: Callable[[Path], Path], model: str, shapes: list[tuple[int, int]], block: float, params: int | None, output: float,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_layer": 12, "n_head": 4, "vocab_size": 1000,
        "n_positions": 2048, "activation_function": "gelu_new",
    }))  # fmt: skip
    (tmp_path / "device").mkdir()
    path = make(tmp_path / "device")
    (found,) = read_profiles(path, format=format, model=str(tmp_path / "config.json") if model else "").values()
    first = found.timed[0].layers["block 1"]

    assert [(one.tp, one.micro_batch) for one in found.timed] == shapes
    assert first.forward_s + first.backward_s == pytest.approx(block)
    assert first.backward_s == pytest.approx(2 * first.forward_s)
    assert found.boundary_bytes["block 1"] == output
    assert params is None or found.held[0].params["block 1"] == params
    check(found, where=format)


@pytest.mark.parametrize("format", ["metis", "varuna", "amp"])
def test_a_folder_without_profiles_is_refused(format: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile) as caught:
        read_profiles(tmp_path, format=format, model="x")

    assert caught.value.code == "SP-MIX-061"


@pytest.mark.parametrize(("format", "make"), [("metis", metis), ("varuna", varuna), ("piper", piper), ("galvatron", galvatron)])
def test_a_peers_file_with_a_hole_is_refused(format: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    for file in tmp_path.glob("*.json"):
        text = file.read_text().replace("layer_compute_total_ms", "x").replace("backward", "x").replace("timePerSample", "x")
        file.write_text(text.replace("layertype_0", "x"))
    with pytest.raises(BadFile) as caught:
        read_profiles(path, format=format, model="gpt2-xl" if format == "galvatron" else "")

    assert caught.value.code == "SP-MIX-058"
