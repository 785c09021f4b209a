"""Defects of PyTorch 2.13's ONNX exporter and ONNX Runtime 1.32. pip install torch==2.13.0 onnxruntime==1.32.0 onnx onnxscript."""

import logging
import warnings

import onnxruntime
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator

import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
NAN = float("nan")


def layer_norm_gradient(x, weight):
    """Forward and backward pass in one graph, as training graphs are exported."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def step(x, weight):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(F.layer_norm(x, (8,), weight).sum(), x)[0]

    return make_fx(step, torch._decomp.core_aten_decompositions())(x, weight)


CASES = {
    "amax-nan": (lambda x: x.amax(-1), (torch.tensor([1.0, NAN, 2.0]),)),
    "max-dim-nan": (lambda x: x.max(-1)[0], (torch.tensor([1.0, NAN, 2.0]),)),
    "argmax-nan": (lambda x: x.argmax(-1), (torch.tensor([1.0, NAN, 2.0]),)),
    "sum-int64": (lambda x: x.sum(), (torch.tensor([2**53 + 1, 2**40]),)),
    "log-sigmoid": (F.logsigmoid, (torch.tensor([-8000.0, 6.25]),)),
    "adam-eps": (lambda v: 1 / (v.sqrt() + 1e-8), (torch.tensor([0.0, 1e-14]),)),
    "batch-norm-training": (
        lambda x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=True), (torch.arange(12.0).view(2, 3, 2),)
    ),
    "nll-loss-weight": (
        lambda x, target: torch.ops.aten.nll_loss_forward(x, target, None, 1, -100)[1],
        (torch.zeros(6, 5).log_softmax(-1), torch.tensor([0, 1, 2, 3, 4, 0])),
    ),
    "layer-norm-gradient-fp16": (None, (torch.randn(2, 8).half(), torch.randn(8).half())),
}
for name, (function, inputs) in CASES.items():

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    module = Module() if function else layer_norm_gradient(*inputs)
    expected = module(*inputs)
    model = torch.onnx.export(torch.export.export(module, inputs), dynamo=True, verbose=False).model_proto
    feeds = {one.name: value.numpy() for one, value in zip(model.graph.input, inputs)}
    for who, run in (
        ("runtime", lambda: onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)),
        ("onnx.reference", lambda: ReferenceEvaluator(model).run(None, feeds)),
    ):
        try:
            got = torch.as_tensor(run()[0])
            same = got.dtype == expected.dtype and torch.allclose(got, expected, rtol=1e-2, atol=1e-2, equal_nan=True)
            same = same and (expected.is_floating_point() or torch.equal(got, expected))
            said = got.flatten()[:3].tolist()
        except Exception as error:
            same, said = False, str(error).splitlines()[0][:200]
        print("ok    " if same else "DEFECT", name, who, "expected", expected.flatten()[:3].tolist(), "got", said)
