"""Which library the chips of one group talk by: what PyTorch or the vendor's plug-in registered for the device."""

from __future__ import annotations

from sapper.errors import UnknownName


def backend_of(device: str) -> str:
    """The collective backend of a device type: nccl, hccl, mccl, cncl, xccl, eccl, gloo, ...

    A plug-in such as torch_npu registers its own when it is imported, so that the device must have been opened before.

    Args:
        device: Type of the device, such as ``cuda`` or ``npu``.

    Raises:
        UnknownName: Nothing is registered for it.
    """
    from torch.distributed import Backend

    registered: dict[str, str] = Backend.default_device_backend_map
    if device not in registered:
        known = ", ".join(f"{name} ({backend})" for name, backend in sorted(registered.items()))
        raise UnknownName("SP-MIX-160", device=device, known=known)
    return registered[device]
