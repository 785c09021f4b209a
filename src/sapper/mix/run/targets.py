"""What a user names on the command line, as a model and data that the runtime takes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

from sapper.errors import BadFile, BadValue
from sapper.files import read_json
from sapper.mix.identity import check_model, workload_digest
from sapper.mix.plan import MixPlan
from sapper.mix.run.data import Data, Rows, Tokens, data_of
from sapper.mix.run.models import BuiltModel, ConfigModel, Model, without_data
from sapper.programs import faults, library
from sapper.programs.program import build, load_builder, own_loss
from sapper.workloads.config import load

_DIGEST = 64
"""Letters of a SHA-256."""
_OPENS = """
import sys, torch
try:
    torch.zeros(1, device=sys.argv[1])
except (RuntimeError, AssertionError) as error:  # a build without the device asserts
    print(str(error).splitlines()[0])
    sys.exit(1)
"""
"""Opens the device that is named."""


def model_of(target: str, *, seq_len: int) -> Model:
    """The model of a config.json, a folder with one, the name of a bundled model, or ``FILE.py:BUILDER``.

    Raises:
        SapperError: There is none.
    """
    if library.is_config(target):
        path = library.config_path(target)
        return ConfigModel(config=read_json(path), name=library.config_name(path))
    builder, path_ = load_builder(target)
    return BuiltModel(lambda: build(builder, path_, batch=None, seq=seq_len if _takes_seq(builder) else None), name=target)


def check_config(plan: MixPlan, target: str, *, where: str) -> None:
    """Refuse a config of another model than the plan's; a builder's module, and a plan written by hand without digest, pass.

    Args:
        plan: The plan.
        target: As :func:`model_of` takes it.
        where: The plan's file, for the message.

    Raises:
        BadPlan: Another model.
        SapperError: The config cannot be read.
    """
    if len(plan.model_digest) == _DIGEST and library.is_config(target):
        loaded = load(library.config_path(target))
        check_model(plan, workload_digest(loaded.workload(loaded.fixed_seq_len or plan.seq_len)), name=target, where=where)


def check_device(device: str) -> None:
    """Refuse a device that PyTorch does not have here.

    Another process opens it: the launcher itself would hold memory of the first accelerator for as long as the run takes.

    Raises:
        BadValue: With what PyTorch said.
    """
    if device == "cpu":
        return
    asked = subprocess.run([sys.executable, "-c", _OPENS, device], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if asked.returncode:
        said = (asked.stdout.strip() or asked.stderr.strip() or f"exit code {asked.returncode}").splitlines()
        raise BadValue("SP-MIX-107", where="--device", device=device, problem=said[-1])


def check_loss(model: Model) -> None:
    """Refuse a builder's module that says nowhere what is to be learnt: what capture and prove then differentiate is a mean of its values.

    Raises:
        BadValue: It has no loss.
        SapperError: It does not run.
    """
    if not isinstance(model, BuiltModel):
        return
    with without_data():
        program = model.shapes()
        if program.loss is not None:
            return
        try:
            with faults.of_the_user(model.file, "SP-PROG-017"):
                output = program.call()
        except BadFile as error:
            if faults.is_data_dependent(error):  # the run itself will show
                return
            raise
    if own_loss(output) is None:
        raise BadValue("SP-MIX-108", where=model.name)


def samples_of(target: str | None, model: Model, *, seq_len: int) -> Data | None:
    """What ``FILE.py:LOADER`` returns, dealt out by number; without a loader, drawn sequences for a config's model.

    Returns:
        None where a builder's module has no loader: its inputs are one batch, which times can be measured by and nothing learnt.

    Raises:
        SapperError: The loader fails, or returns nothing that can be dealt out.
    """
    if target is not None:
        loader, path = load_builder(target)
        return data_of(loader(), shifted=model.shifts, where=path)
    if isinstance(model, ConfigModel):
        text = model.config.get("text_config", model.config)
        return Tokens(vocab=int(text["vocab_size"]), seq=seq_len)
    return None


def _takes_seq(builder: Any) -> bool:
    return "seq" in inspect.signature(builder).parameters


def own_inputs(model: Model) -> Data:
    """The inputs that a builder made, its samples over and over: enough to measure times by, not to train on."""
    assert isinstance(model, BuiltModel), "a config's model has drawn sequences"
    return Rows(model.build().inputs, shifted=model.shifts)
