"""Time of collectives over hierarchical links (temporary)."""
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
from sapper.clusters.cluster import Group

@dataclass(frozen=True)
class Fabric:
    topology: str; up: float; domain_size: int; up_lat: float; out: float; out_lat: float; eff: float = 1.0

def no_fabric() -> Fabric:
    return Fabric("none", 1.0, 1, 0.0, 1.0, 0.0)

def fabric_of(group: Group) -> Fabric:
    u, o = group.scale_up, group.scale_out
    return Fabric(u.topology, u.bandwidth_bytes_per_s.number, u.domain_size, u.latency_s.number or 3e-6,
                  (o.bandwidth_bytes_per_s.number if o and o.bandwidth_bytes_per_s.number else 1e9), (o.latency_s.number if o else 1e-5))

def _rate(n, f):
    n = np.maximum(n, 1)
    if f.topology == "full-mesh": return f.up * np.maximum(n - 1, 1) / max(f.domain_size - 1, 1)
    if f.topology == "pcie-tree": return f.up * np.minimum(1, 2 / n) ** 1.5
    return f.up + 0 * n

def reduce_scatter_s(size, inner, outer, f):
    a = (inner - 1) / inner * size / _rate(inner, f) + (inner - 1) * f.up_lat
    b = (outer - 1) / outer * size / inner / f.out + np.log2(np.maximum(outer, 1)) * f.out_lat
    return np.where(inner > 1, a, 0) + np.where(outer > 1, b, 0)

all_gather_s = reduce_scatter_s
def all_reduce_s(size, inner, outer, f): return 2 * reduce_scatter_s(size, inner, outer, f)
def all_to_all_s(size, inner, outer, f):
    n = inner * outer
    return np.maximum(size * (inner - 1) / n / _rate(inner, f), size * (n - inner) / n / f.out) + f.up_lat * np.log2(np.maximum(n, 1))
def send_s(size, f, crosses): return np.where(crosses, size / f.out + f.out_lat, size / (f.up / (f.domain_size - 1 if f.topology == "full-mesh" else 1)) + f.up_lat)
