from __future__ import annotations

import itertools
import os
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from assess_examples import assessment
from sapper.assess.assessment import Assessment
from sapper.assess.question import power_price, pue
from sapper.dossier import page, write_dossier
from sapper.dossier.page import SECTIONS
from sapper.dossier.write import slug
from sapper.errors import BadFile, InputError

pytestmark = pytest.mark.slow  # charts take seconds

VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """What a browser without scripts sees: ids, links, tables by class, and whether tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self._table: list[list[str]] | None = None
        self._cell = False
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.attributes += [(tag, key, value) for key, value in given.items()]
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "table":
            self._table = self.tables.setdefault(given["class"], [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table:
            self._table[-1].append("")
            self._cell = True
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1] if self.open else None}>"
        self.open.pop()
        if tag == "table":
            self._table = None
        if tag in ("td", "th"):
            self._cell = False

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self._table and self._cell:
            self._table[-1][-1] += data + " "


@pytest.fixture(scope="module")
def given() -> Assessment:
    return assessment(power_price=power_price("0.6 CNY/kWh"), pue=pue(1.3))


@pytest.fixture(scope="module")
def pages(given: Assessment) -> dict[str, str]:
    return {lang: page(given, lang) for lang in ("en", "zh")}


@pytest.fixture(scope="module")
def read(pages: dict[str, str]) -> dict[str, Reader]:
    return {lang: Reader(html) for lang, html in pages.items()}


def digits(text: str) -> list[str]:
    return re.findall(r"\d[\d,.]*\d|\d", text)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_is_well_formed_and_has_its_sections_in_order(read: dict[str, Reader], lang: str) -> None:
    ids = read[lang].ids

    assert read[lang].open == []
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_loads_nothing_and_runs_nothing(read: dict[str, Reader], pages: dict[str, str], lang: str) -> None:
    loads = [(tag, key, value) for tag, key, value in read[lang].attributes if key in ("src", "srcset", "data", "action", "poster")]
    outside = [link for link in read[lang].links if not link.startswith("#")]
    scripts = [item for item in read[lang].attributes if item[1].startswith("on")]

    assert loads == [] and outside == [] and scripts == []
    assert not re.search(r"<(script|link|iframe|img|object|embed|image)\b", pages[lang])
    assert not re.search(r"@import|url\((?!#)", pages[lang])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_anchor_leads_somewhere(read: dict[str, Reader], lang: str) -> None:
    dead = {link for link in read[lang].links if link.startswith("#") and link[1:] not in read[lang].ids}

    assert dead == set()


def test_both_pages_have_the_same_numbers(read: dict[str, Reader]) -> None:
    en, zh = read["en"].tables, read["zh"].tables

    assert list(en) == list(zh)
    for name in ("t-options", "t-costs", "t-checks", "t-links", "t-plans", "t-coverage", "t-basis"):
        left = [digits(cell) for row in en[name][1:] for cell in row[1:]]
        right = [digits(cell) for row in zh[name][1:] for cell in row[1:]]
        assert [sorted(cell) for cell in left] == [sorted(cell) for cell in right], name
        assert len(en[name]) > 2


def test_every_number_of_the_options_has_an_interval_and_a_grade(given: Assessment, read: dict[str, Reader]) -> None:
    rows = read["en"].tables["t-options"][1:]

    assert len(rows) == len(given.options)
    for row in rows[: len(given.ranking)]:
        for at, cell in enumerate(row[1:]):
            if "unknown" in cell:
                continue
            assert re.search(r"\b[A-E]\b", cell), cell
            exact = at == 7 or cell.startswith("1.00")  # the share of communication, and the reference against itself
            assert exact or "\u2013" in cell, cell


def test_refused_options_are_in_the_table_with_the_missing_field(read: dict[str, Reader]) -> None:
    for lang in ("en", "zh"):
        refused = read[lang].tables["t-options"][-1]
        assert "S60" in refused[0]
        assert "peak_flops_per_s.bf16" in refused[1]


def test_unknown_is_written_and_never_zero(read: dict[str, Reader]) -> None:
    chips = {row[0].split()[1]: row for row in read["en"].tables["t-chips"][1:]}

    assert "unknown" in chips["S60"][1]
    assert "unknown" in chips["Kunlun"][5]
    assert "\u672a\u77e5" in read["zh"].tables["t-chips"][-1][1]


def test_every_fact_stands_in_the_index_with_source_and_grade(given: Assessment, read: dict[str, Reader]) -> None:
    rows = read["en"].tables["t-evidence"][1:]

    assert len(rows) == len(given.evidence)
    assert [row[0].strip() for row in rows] == [str(source.number) for source in given.evidence]
    assert all(row[5].strip() for row in rows)
    assert [f"e{source.number}" for source in given.evidence] == [name for name in read["en"].ids if re.fullmatch(r"e\d+", name)]


def test_the_page_says_that_nobody_verified_it(read: dict[str, Reader]) -> None:
    assert read["en"].text.lower().count("verified by a third party") >= 2
    assert read["zh"].text.count("\u672a\u7ecf\u7b2c\u4e09\u65b9\u9a8c\u8bc1") >= 2


def test_prices_state_their_tax_flag_and_chinese_money_its_custom(read: dict[str, Reader]) -> None:
    npu = next(row for row in read["zh"].tables["t-chips"] if "910B3" in row[0])

    assert "12.0 \u4e07\u5143" in npu[7]
    assert "\u542b\u7a0e\u53e3\u5f84\u672a\u6ce8\u660e" in npu[7]


def test_the_chinese_page_leaves_no_english_sentence(read: dict[str, Reader]) -> None:
    """Headings, notes and cells of our own are Chinese; sources' own words, names, codes and units may be Latin."""
    tables = read["zh"].tables
    for name in ("t-options", "t-costs", "t-checks", "t-coverage"):
        for heading in tables[name][0]:
            assert re.search(r"[\u4e00-\u9fff]", heading) or heading.strip() in ("MFU",), heading
    ours = re.sub(r"Licence required: rule of 7 Oct 2022|a data sheet|a filing", "", read["zh"].text)
    sentences = list(re.findall(r"(?:[a-z]{2,} ){4,}[a-z]{2,}", ours))
    assert sentences == []


def test_charts_are_accessible_svg_with_text_and_a_table_beside(pages: dict[str, str]) -> None:
    drawn = re.findall(r"<svg\b.*?</svg>", pages["zh"], re.DOTALL)

    assert len(drawn) == 5
    for source in drawn:
        root = ET.fromstring(source)
        names = [child.tag.split("}")[1] for child in root]
        assert names[:2] == ["title", "desc"]
        assert root.get("role") == "img"
        assert root.findall(".//{http://www.w3.org/2000/svg}text"), "text must stay text"
        assert "font-family" not in source and "DejaVu" not in source
        assert "<metadata" not in source
    assert pages["zh"].count("<details>") == len(drawn)


def boxes(svg: ET.Element) -> list[tuple[str, float, float, float, float]]:
    """Text, left, right, top and bottom of every text of a chart, by its anchor and the usual width of letters."""
    found = []
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        style, said = text.get("style", ""), "".join(text.itertext())
        size = float(re.search(r"font-size: ([\d.]+)px", style)[1])  # type: ignore[index]
        width = sum(size if ord(letter) > 0x2E80 else 0.52 * size for letter in said)
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        anchor = re.search(r"text-anchor: (\w+)", style)
        left = x - {"end": width, "middle": width / 2}.get(anchor[1] if anchor else "start", 0.0)
        found.append((said, left, left + width, y - 0.75 * size, y + 0.1 * size))
    return found


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_no_text_of_a_chart_lies_on_another_or_outside(pages: dict[str, str], lang: str) -> None:
    drawn = [ET.fromstring(source) for source in re.findall(r"<svg\b.*?</svg>", pages[lang], re.DOTALL)]
    clashes = []
    for svg in drawn:
        width = float(svg.get("viewBox", "").split()[2])
        placed = boxes(svg)
        clashes += [(one[0], "outside") for one in placed if one[1] < -1 or one[2] > width + 1]
        for one, other in itertools.combinations(placed, 2):
            if min(one[2], other[2]) - max(one[1], other[1]) > 0.5 and min(one[4], other[4]) - max(one[3], other[3]) > 0.5:
                clashes.append((one[0], other[0]))
    assert sum(len(boxes(svg)) for svg in drawn) > 100
    assert clashes == []


def test_pages_are_the_same_each_time(given: Assessment, pages: dict[str, str]) -> None:
    assert page(given, "en") == pages["en"]


def test_names_of_users_cannot_break_out_of_the_page(given: Assessment) -> None:
    evil = "<script>alert(1)</script>&\"'"
    asked = msgspec.structs.replace(given.asked, model=evil)
    option = msgspec.structs.replace(given.options[1], label=evil)
    html = page(msgspec.structs.replace(given, asked=asked, options=(given.options[0], option, *given.options[2:])), "en")

    assert "<script" not in html
    assert Reader(html).open == []


def test_files_are_written_whole_or_not_at_all(given: Assessment, tmp_path: Path) -> None:
    written = write_dossier(given, tmp_path / "deep" / "out")

    assert [path.name for path in written] == ["assess-qwen2.5-7b.en.html", "assess-qwen2.5-7b.zh.html", "assess-qwen2.5-7b.json"]
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == sorted(path.name for path in written)
    assert msgspec.json.decode(written[2].read_bytes(), type=Assessment) == given
    assert 'href="assess-qwen2.5-7b.zh.html"' in written[0].read_text("utf-8")


def test_a_folder_that_cannot_be_written_is_refused(given: Assessment, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(BadFile):
        write_dossier(given, tmp_path / "file", languages=())

    assert (tmp_path / "file").read_text() == "x"


def test_without_matplotlib_the_command_that_installs_it_is_named(
    given: Assessment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)

    with pytest.raises(InputError) as refused:
        write_dossier(given, tmp_path / "out")

    assert "pip install matplotlib" in refused.value.render("en")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Qwen/Qwen2.5-7B", "qwen2.5-7b"), ("../../etc/passwd", "passwd"), ("C:\\m\\x y", "x-y"), ("\u901a\u4e49", "model"), ("..", "model")],
)
def test_a_model_name_becomes_a_harmless_file_name(name: str, expected: str) -> None:
    assert slug(name) == expected
