"""Defects of OpenVINO 2026.4.1 on a CPU. pip install torch==2.13.0 openvino==2026.4.1 packaging."""

import openvino

import torch

NAN = float("nan")
CASES = {
    "relu-nan": (torch.relu, torch.tensor([NAN, 1.0])),
    "clamp-nan": (lambda x: x.clamp(-1, 1), torch.tensor([NAN, 1.0])),
    "amax-nan": (lambda x: x.amax(-1), torch.tensor([1.0, NAN, 2.0])),
    "amin-nan": (lambda x: x.amin(-1), torch.tensor([1.0, NAN, 2.0])),
    "argmax-nan": (lambda x: x.argmax(-1), torch.tensor([1.0, NAN, 2.0])),
    "erf-small": (torch.erf, torch.tensor([1e-5, 1e-6, 1e-7])),
    "cumsum-bool": (lambda x: x.cumsum(-1), torch.tensor([True, True, False, True])),
    "softplus-small": (torch.nn.functional.softplus, torch.tensor([-8.0, -12.0, -16.0])),
    "log-sigmoid": (torch.nn.functional.logsigmoid, torch.tensor([-8000.0, 6.25])),
    "native-layer-norm-mean": (lambda x: torch.ops.aten.native_layer_norm(x, [4], None, None, 1e-5)[1], torch.tensor([[1.0, 2, 3, 4]])),
}
for name, (function, x) in CASES.items():

    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    try:
        model = openvino.convert_model(torch.export.export(Module(), (x,)))
        got = torch.from_numpy(openvino.Core().compile_model(model, "CPU")([x.numpy()])[0].copy())
        same = torch.allclose(got.double(), function(x).double(), equal_nan=True)
        said = got.tolist()
    except Exception as error:
        same, said = False, str(error).strip().splitlines()[-1]
    print("ok    " if same else "DEFECT", name, "expected", function(x).tolist(), "got", said)
