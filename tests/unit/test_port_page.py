"""``sapper port report``: the picture, in both languages."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from port_kit import LOUD, SHIM, finding, judged, outcome, rule

from sapper import messages
from sapper.dossier.port.folders import MOST_FOLDERS, folders
from sapper.dossier.port.matrix import matrix
from sapper.dossier.port.page import page
from sapper.dossier.port.write import write_pages
from sapper.port.finding import Unread
from sapper.port.report.judged import Judged
from sapper.port.report.outcome import Outcome
from sapper.port.verdict import UNKNOWN

HAN = re.compile(r"[\u4e00-\u9fff]")
VOID = {"meta", "wbr", "br"}


class Reader(HTMLParser):
    """Text, places and links of a page; fails where a tag is closed that was not the last one opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.ids, self.hrefs, self.classes = "", set[str](), set[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        given = dict(attrs)
        self.ids |= {given["id"] or ""} if "id" in given else set()
        self.hrefs |= {given["href"] or ""} if "href" in given else set()
        self.classes.append(given.get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data


def several() -> Outcome:
    return outcome(
        judged(finding(path="core/a.py"), ascend=SHIM, musa=UNKNOWN, rocm=UNKNOWN),
        judged(finding(path="core/b.py", symbol="torch.cuda.synchronize"), ascend=LOUD, musa=LOUD, rocm=UNKNOWN),
        judged(finding(path="tests/c.py", standing="vendor"), ascend=LOUD, musa=LOUD, rocm=UNKNOWN),
        judged(finding("SP-PORT-601", path="<b>.txt", symbol="<script>"), of=rule("SP-PORT-601", klass="library"),
               ascend=UNKNOWN, musa=LOUD, rocm=UNKNOWN),
        unread=(Unread(path="bad.json", code="SP-FILE-008", line=4),),
    )  # fmt: skip


@pytest.mark.parametrize("lang", messages.LANGUAGES)
def test_the_page_is_whole_and_leads_where_it_says(lang: str) -> None:
    reader = Reader(page(several(), lang, name="my tree", other="port.zh.html"))
    assert reader.open == []
    assert {href[1:] for href in reader.hrefs if href.startswith("#")} <= reader.ids
    assert {href for href in reader.hrefs if not href.startswith("#")} == {"port.zh.html", SHIM.source, LOUD.source}
    assert "bad.json:4" in reader.text and "<script>" in reader.text
    assert bool(HAN.search(reader.text.replace("中文版", "").replace("工兵", ""))) == (lang == "zh")


def test_silent_couplings_come_before_everything_else() -> None:
    text = Reader(page(several(), "en", name="tree")).text
    assert text.index("3 couplings in 3 of 7 files") < text.index("Nothing fails here") < text.index("Of all that ties")
    silent = text[text.index("Nothing fails here") : text.index("Of all that ties")]
    assert "core/a.py:3" in silent and "core/b.py" not in silent


def test_the_matrix_has_each_verdict_with_its_source_or_unknown() -> None:
    ties = [one for one in several().found if one.finding.standing == "ties"]
    table = matrix(ties, "en")
    assert [row.symbols for row in table.rows] == [("torch.cuda.is_available",), ("torch.cuda.synchronize",), ("<script>",)]
    assert [(square.status, square.source) for square in table.rows[1].squares] == [("rewrite", 2), ("rewrite", 2), ("unknown", None)]
    assert table.sources[1] == (LOUD.source, LOUD.date)
    assert matrix(ties, "en", most=1).left_out == 2


def test_what_is_known_alike_shares_a_row() -> None:
    found = [judged(finding(symbol=symbol, line=line), ascend=LOUD) for line, symbol in enumerate(("a", "b", "b", "c", "d", "e"), 1)]
    (row,) = matrix(found, "en").rows
    assert (row.symbols, row.more_symbols, row.count, row.title) == (("b", "a", "c", "d"), 1, 6, "`b` asks for NVIDIA")


def many(paths: dict[str, int]) -> list[Judged]:
    return [judged(finding(path=path, line=line)) for path, count in paths.items() for line in range(1, count + 1)]


def test_folders_are_opened_where_there_is_much_in_them() -> None:
    bars, beyond = folders(many({"big/x/a.py": 30, "big/y/b.py": 20, "big/c.py": 5, "small/d.py": 3, "e.py": 2}))
    assert {bar.path: bar.count for bar in bars} == {"big/x/": 30, "big/y/": 20, "big/*": 5, "small/": 3, ".": 2}
    assert beyond == 0
    assert bars[0].pieces[0].share == 1.0


def test_no_coupling_is_lost_between_the_bars() -> None:
    paths = {f"f{index}/g{index % 7}/h.py": index % 5 + 1 for index in range(60)}
    bars, beyond = folders(many(paths))
    assert len(bars) <= MOST_FOLDERS
    assert sum(bar.count for bar in bars) + beyond == sum(paths.values())


def test_a_long_chain_of_folders_is_one_bar() -> None:
    bars, _ = folders(many({"src/project/only/a.py": 9}))
    assert [bar.path for bar in bars] == ["src/project/only/"]


def test_a_tree_without_couplings_says_so() -> None:
    assert "Nothing in 7 files ties" in Reader(page(outcome(), "en", name="tree")).text


def test_both_languages_are_written_and_lead_to_each_other(tmp_path: Path) -> None:
    written = write_pages(several(), tmp_path / "port.html", lang="en", name="tree")
    assert [path.name for path in written] == ["port.html", "port.zh.html"]
    assert "port.zh.html" in Reader(written[0].read_text("utf-8")).hrefs
    assert "port.html" in Reader(written[1].read_text("utf-8")).hrefs
