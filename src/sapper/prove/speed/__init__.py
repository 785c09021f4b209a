"""Speed: how fast the ops of a workload run against what the machine can do, and against what was predicted."""
