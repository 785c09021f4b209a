"""Figures as static SVG that takes its fonts and colours from the page around it.

Text stays text (``svg.fonttype`` none) without a font of its own, so that the page's font stack, CJK fonts included,
applies. Colours are sentinels that become CSS variables with the sentinel as the fallback; the page's dark theme and its
print theme then reach into the charts. Output is reproducible: no date, hashed ids.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

from sapper.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1a1c1e", "#63686e", "#dfe2e5", "#fefefe"
SERIES = {
    "blue": "#0072b2",
    "sky": "#56b4e9",
    "green": "#009e73",
    "yellow": "#e8d83a",
    "orange": "#e69f00",
    "vermilion": "#d55e00",
    "pink": "#cc79a7",
    "wine": "#882255",
    "olive": "#999933",
    "teal": "#44aa99",
    "grey": "#9aa0a6",
    "silver": "#c9cdd1",
}
"""Okabe and Ito's colours, told apart under the common kinds of colour blindness, and some of Paul Tol's muted ones."""

_VARIABLES = {INK: "currentColor", MUTED: f"var(--muted, {MUTED})", GRID: f"var(--rule, {GRID})", PAPER: f"var(--paper, {PAPER})"} | {
    colour: f"var(--c-{name}, {colour})" for name, colour in SERIES.items()
}
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
WIDTH = 920.0
"""Units of the view box; the page scales it."""
FONT = 12.5


def require() -> None:
    """Make sure that matplotlib is there.

    Raises:
        InputError: It is not; the message carries the command that installs it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError("SP-ASSESS-009") from error


def figure(height: float, *, width: float = WIDTH) -> Figure:
    """An empty figure of ``width`` by ``height`` units, without pyplot and its global state."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width / 72, height / 72), dpi=72)
    made.patch.set_visible(False)
    return made


def axes(made: Figure, *, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in units from the lower left corner, plain: no box, a thin grid along x."""
    total_w, total_h = made.get_figwidth() * 72, made.get_figheight() * 72
    found = made.add_axes((left / total_w, bottom / total_h, width / total_w, height / total_h))
    found.patch.set_visible(False)
    for side in ("top", "right", "left"):
        found.spines[side].set_visible(False)
    found.spines["bottom"].set_color(MUTED)
    found.tick_params(axis="both", length=0, labelsize=FONT - 1, colors=MUTED)
    found.grid(axis="x", color=GRID, linewidth=1)
    found.set_axisbelow(True)
    return found


def text_width(text: str, size: float = FONT) -> float:
    """Units that ``text`` takes, wide letters counted as a whole square: an estimate on the safe side."""
    return sum(size if unicodedata.east_asian_width(letter) in "WF" else 0.58 * size for letter in text)


def clip(text: str, width: float, *, size: float = FONT) -> str:
    """``text`` cut to ``width`` units with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "\N{HORIZONTAL ELLIPSIS}", size) > width:
        text = text[:-1]
    return text.rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def svg(made: Figure, *, name: str, title: str, description: str) -> str:
    """The figure as an ``<svg>`` element to stand inside a page.

    Args:
        made: What was drawn.
        name: Prefix of all ids, unique in the page.
        title: Short name for assistive technology.
        description: What the chart shows, in a sentence.
    """
    import matplotlib

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": FONT, "text.color": INK, "axes.unicode_minus": False}
    out = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")  # text is not drawn here: the page's fonts have the glyphs
        made.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _clean(out.getvalue(), name=name, title=title, description=description)


def _clean(source: str, *, name: str, title: str, description: str) -> str:
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", source))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _element(element, name)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc", "stroke-linejoin": "round", "stroke-linecap": "butt"}
    for at, (tag, text) in enumerate((("title", title), ("desc", description))):
        found = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        found.text = text
        root.insert(at, found)
    return ET.tostring(root, encoding="unicode")


def _element(element: ET.Element, name: str) -> None:
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key.endswith("href") and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{name}-"))
    style = element.get("style")
    if style is None:
        if element.tag == f"{{{_SVG}}}text":
            element.set("style", "fill: currentColor")
        return
    style = re.sub(r"font: ([^;']*?)(\d[\d.]*px)[^;]*", lambda m: _font(m[1], m[2]), style)
    style = re.sub(r"font-family: [^;]*;?\s*", "", style)
    for colour, variable in _VARIABLES.items():
        style = style.replace(colour, variable)
    if element.tag == f"{{{_SVG}}}text" and "fill" not in style:
        style += "; fill: currentColor"
    element.set("style", style)


def _font(words: str, size: str) -> str:
    weight = "; font-weight: 600" if re.search(r"bold|[6-9]00", words) else ""
    slant = "; font-style: italic" if "italic" in words else ""
    return f"font-size: {size}{weight}{slant}"
