"""Charts of an Assessment as static SVG."""

from __future__ import annotations

from sapper.assess.assessment import Assessment
from sapper.dossier.charts.canvas import require
from sapper.dossier.charts.intervals import costs, job_time
from sapper.dossier.charts.model import Chart
from sapper.dossier.charts.roofline import roofline
from sapper.dossier.charts.stacks import breakdown, memory

__all__ = ["Chart", "charts"]


def charts(assessment: Assessment, lang: str) -> tuple[Chart, ...]:
    """All charts that the Assessment has numbers for, in the order of the page.

    Raises:
        InputError: matplotlib is not installed.
    """
    require()
    found = [
        job_time(assessment, lang),
        *costs(assessment, lang),
        breakdown(assessment, lang),
        memory(assessment, lang),
        roofline(assessment, lang),
    ]
    return tuple(chart for chart in found if chart is not None)
