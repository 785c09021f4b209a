"""The probe: one file of Python that measures a device where Sapper cannot be installed; see docs/probe.md."""

from __future__ import annotations

from sapper.probe.emit import probe_source

__all__ = ["probe_source"]
