"""``sapper prove ops``: every op of PyTorch's database and of a workload, on a device, case by case in isolation."""
