"""A report as a page, as Markdown, and in the README."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.report import save_report
from benchmarks.report.document import Explanation, Report
from benchmarks.report.html import render_html
from benchmarks.report.markdown import render_markdown
from benchmarks.report.results import render_results
from benchmarks.report.sections import sections
from benchmarks.report.tables import (
    result_rows,
    to_text,
)


class Checker(HTMLParser):
    """Balanced tags, no scripts, nothing loaded from elsewhere."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href") and not (value or "").startswith(("#", "data:,")):
                raise AssertionError(f"<{tag} {name}={value}> loads something")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(report: Report) -> None:
    page = render_html(report)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert page.count("<svg ") == 10
    assert not re.search(r"url\((?!#)", page)
    assert "#0f0f" not in page, "a colour of the plots is not a variable of the page"
    text = " ".join(checker.text.split()).replace("\xa0", " ")
    for expected in ("fp32 against int8", "Example CPU <2 GHz>", "is unstable: <example>"):
        assert expected in text
    assert "prefers-color-scheme: dark" in page


def test_what_is_not_faster_is_explained_with_both_times(report: Report) -> None:
    why = Explanation(candidate="int8", findings=("it <waits>",), advice=("do not wait",))
    explained = replace(report, explanations=(why,))
    titles = [section.title for section in sections(explained)]
    assert not [title for title in titles if title.startswith("Where the time goes")]
    page, text = render_html(explained), render_markdown(explained)
    for shown in (page, text):
        at = shown.index("Why is int8 not faster?")
        times = shown.index("Where the time goes: fp32 and int8", at)
        assert at < times < shown.index("Latency on the host")
        assert shown.count("conversions of type or layout") == 1
    assert page.count("<svg ") == 10
    bare = tuple(replace(system, kernels=()) for system in report.systems)
    assert "Where the time goes" not in render_html(replace(explained, systems=bare))


def test_a_lone_system_makes_a_report_too(report: Report) -> None:
    alone = replace(
        report, systems=report.systems[:1], comparisons=(), scenarios=(), sweeps=(), ranges=()
    )
    assert "median latency" in render_html(alone)
    assert "baseline" in to_text(result_rows(alone))


def test_markdown_has_the_tables_and_the_sentences(report: Report) -> None:
    text = render_markdown(report)
    assert "| int8 |" in text
    assert "- fp32 is unstable: &lt;example>" in text
    assert "## Accuracy" in text
    assert "- model: Example CPU &lt;2 GHz>" in text


def test_the_readme_table_from_stored_results(report: Report, tmp_path: Path) -> None:
    save_report(report, tmp_path / "desk.json")
    text = render_results([tmp_path])
    lines = text.splitlines()
    assert lines[0].startswith("| engine | runs on | p50 ms | p99 ms | images/s | size MB |")
    assert lines[3].startswith("| int8 | cpu int8 |")
    assert "97.60 % top1 | 0.40 points" in lines[3]
    assert lines[-1].startswith(
        "desk: Example CPU &lt;2 GHz>, unknown cores, 2026-01-02, commit abc"
    )
    assert render_results([tmp_path / "desk.json"]) == text
    save_report(report, tmp_path / "desk.json.gz")
    assert render_results([tmp_path / "desk.json.gz"]) == text
    assert render_results([]) == ""
