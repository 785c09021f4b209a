"""A defect of IREE 3.13.0. pip install torch==2.13.0 iree-base-compiler==3.13.0 iree-base-runtime==3.13.0 iree-turbine==3.9.0."""

import iree.compiler
import iree.runtime
from iree.turbine import aot

import torch


class Exp(torch.nn.Module):
    def forward(self, x):
        return x.exp()


x = torch.ones(4, 3, dtype=torch.float64)
module = str(aot.export(Exp(), args=(x,)).mlir_module).encode()
compiled = iree.compiler.compile_str(module, target_backends=["llvm-cpu"], extra_args=["--iree-llvmcpu-target-cpu=generic"])
config = iree.runtime.Config("local-task")
loaded = iree.runtime.load_vm_module(iree.runtime.VmModule.copy_buffer(config.vm_instance, compiled), config)
try:
    got = loaded.main(x.numpy()).to_host()
    print("ok" if got.dtype == "float64" else "DEFECT", got.dtype, got.ravel()[:2])
except Exception as error:
    print("DEFECT fp64 expected", x.exp().flatten()[:2].tolist(), "got", str(error).splitlines()[0][:200])
