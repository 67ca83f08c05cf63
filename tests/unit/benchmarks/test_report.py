from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artefacts.errors import ArtefactError, InputError, RequestError
from benchmarks.report import load_report, save_report
from benchmarks.report.codec import schema_of, to_json
from benchmarks.report.document import Explanation, Report
from benchmarks.report.html import render_html
from benchmarks.report.markdown import render_markdown
from benchmarks.report.results import render_results
from benchmarks.report.sections import sections
from benchmarks.report.tables import (
    csv_rows,
    result_rows,
    three_digits,
    to_csv,
    to_markdown,
    to_text,
)
from tests.unit.benchmarks.made import made_report

SCHEMA = Path(__file__).parents[3] / "benchmarks" / "report" / "report.schema.json"


@pytest.fixture(scope="module")
def report() -> Report:
    return made_report()


def test_a_report_comes_back_with_its_raw_samples(report: Report, tmp_path: Path) -> None:
    save_report(report, tmp_path / "report.json")
    again = load_report(tmp_path / "report.json")
    for one, other in zip(report.systems, again.systems, strict=True):
        assert len(one.latency.rounds_ms) == len(other.latency.rounds_ms)
        assert np.allclose(one.latency.samples_ms, other.latency.samples_ms, rtol=5.1e-5)
    assert to_json(again) == json.loads((tmp_path / "report.json").read_text())
    assert result_rows(again) == result_rows(report)


def test_the_schema_file_is_that_of_the_report(report: Report, update_golden: bool) -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Benchmark report, version 1",
        **schema_of(Report),
    }
    text = json.dumps(schema, indent=1) + "\n"
    if update_golden:
        SCHEMA.write_text(text)
    assert SCHEMA.read_text() == text
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(to_json(report), schema)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(version=2), "version 2, expected 1"),
        (lambda d: d.update(colour="red"), r"\['colour'\]"),
        (lambda d: d.pop("batch"), "batch"),
        (lambda d: d.update(batch="one"), r"batch is 'one', expected a value of type int"),
        (lambda d: d["systems"][0].pop("latency"), "latency"),
        (lambda d: d["systems"].clear(), r"report of systems \[\]"),
        (lambda d: d["comparisons"][0]["speed"].update(verdict="good"), "verdict is 'good'"),
        (lambda d: d["systems"][0]["latency"]["busy_s"].pop(), "wall times"),
    ],
)
def test_altered_reports_are_refused(report: Report, tmp_path: Path, edit: Any, said: str) -> None:
    document = to_json(report)
    edit(document)
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=said):
        load_report(tmp_path / "report.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.sampled_from(list(to_json(made_report()))), json_values)
def test_any_value_in_any_field_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_text(json.dumps({**DOCUMENT, key: value}))
    try:
        load_report(path)
    except InputError as err:
        assert "expected" in str(err)  # noqa: PT017 - either outcome is right


DOCUMENT = to_json(made_report())


def test_a_report_may_be_compressed(report: Report, tmp_path: Path) -> None:
    plain, packed = tmp_path / "r.json", tmp_path / "r.json.gz"
    save_report(report, plain)
    save_report(report, packed)
    first = packed.read_bytes()
    assert len(first) < plain.stat().st_size / 2
    assert to_json(load_report(packed)) == to_json(load_report(plain))
    save_report(report, packed)
    assert packed.read_bytes() == first, "the same report gives other bytes"


def test_a_damaged_compressed_report_is_refused(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json.gz"
    save_report(report, path)
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"{}", whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"r\.json\.gz is no whole gzip file"):
            load_report(path)
    path.write_bytes(whole)
    monkeypatch.setattr("benchmarks.report.codec.LIMIT_BYTES", len(whole))
    with pytest.raises(ArtefactError, match=r"unpacks to more than \d+ MiB"):
        load_report(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_other_files_are_no_reports(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ArtefactError, match="report"):
        load_report(tmp_path / "report.json")


def test_two_systems_of_one_name_are_refused(report: Report) -> None:
    with pytest.raises(RequestError, match=r"\['fp32', 'fp32'\]"):
        replace(report, systems=(report.systems[0],) * 2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.031249, "0.0312"), (1.2, "1.20"), (12.0, "12.0"), (1234.4, "1,234"), (0.0, "0")],
)
def test_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_the_result_table_says_the_same_everywhere(report: Report) -> None:
    rows = result_rows(report)
    assert rows[0] == [
        "system", "p50 ms", "p90 ms", "p99 ms", "images/s", "size MB", "top1", "speed-up",
    ]  # fmt: skip
    assert rows[1][0] == "fp32"
    assert rows[1][-2:] == ["98.00 %", "baseline"]
    assert rows[2][-2] == "97.60 %"
    assert rows[2][-1].startswith(("2.0", "1.9"))
    assert list(csv.reader(io.StringIO(to_csv(rows)))) == rows
    assert [line.strip("| ").split(" | ") for line in to_markdown(rows).splitlines()[2:]] == rows[
        1:
    ]
    for row in csv.DictReader(io.StringIO(to_csv(csv_rows(report)))):
        system = report.system(row["system"])
        shown = next(cells for cells in rows if cells[0] == system.name)
        assert three_digits(float(row["p50_ms"])) == shown[1]
        assert f"{float(row['throughput_per_s']):,.0f}" == shown[4]
        assert f"{100 * float(row['top1']):.2f} %" == shown[6]
        assert row["stable"] == ("yes" if system.latency.stability.stable else "no")
        speedup = f"{float(row['speedup']):.2f}×" if row["speedup"] else "baseline"
        assert shown[7].startswith(speedup)
        assert row["drop_points"] == ("0.4" if system.name == "int8" else "")
    lines = to_text(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert all(cell in lines[2] for cell in rows[1])


def test_an_unstable_figure_is_never_bare(report: Report) -> None:
    system = report.systems[1]
    unstable = replace(system.latency.stability, stable=False, reasons=("drifted",))
    latency = replace(system.latency, stability=unstable)
    shaken = replace(report, systems=(report.systems[0], replace(system, latency=latency)))
    assert result_rows(shaken)[2][1].endswith("unstable")


def test_a_pipe_in_a_name_does_not_break_the_markdown() -> None:
    assert to_markdown([["a|b", "c"], ["d", "e"]]).splitlines()[0] == "| a\\|b | c |"


def test_every_section_has_its_table(report: Report) -> None:
    found = {section.title: section.rows for section in sections(report)}
    assert list(found) == [
        "Latency on the host, end to end",
        "On the device",
        "Settings",
        "Accuracy",
        "Likeness to fp32",
        "Load scenarios",
        "Throughput against batch and threads",
        "Energy",
        "Memory and cold start",
        "Layers",
        "Where the time goes: fp32 and int8",
        "Signal to noise: int8",
    ]
    for rows in found.values():
        assert {len(row) for row in rows} == {len(rows[0])}
    assert found["Accuracy"][2][3] == "0.40 points"
    assert found["Accuracy"][2][5] == "0.5 (2 : 0)"
    assert found["Energy"][1][1] == "3.10"
    assert found["Layers"][1][:5] == ["stem", "Conv", "3.00", "fp32", "fp32"]
    assert found["Layers"][1][-1] == "first: reads the image"
    assert found["Layers"][0][-2] == "int8 SQNR dB"
    assert [row[-2] for row in found["Layers"][1:]] == ["–", "31.2"]
    noise = found["Signal to noise: int8"]
    assert [row[0] for row in noise] == ["tensor", "block_output", "image", "stem_output"]
    assert noise[1] == ["block_output", "block", "Conv", "31.2", "36.5"]
    assert noise[3][3:] == ["equal", "–"]
    assert found["Load scenarios"][1][-1] == "not valid: it was too short"


def test_flipped_defaults_of_trtexec_are_stated_for_its_engines(report: Report) -> None:
    def text(target: str) -> str:
        systems = tuple(replace(system, target=target) for system in report.systems)
        found = sections(replace(report, systems=systems))
        return next(section.text for section in found if section.title == "Settings")

    assert "from 11.0 its defaults are no transfers" in text("tensorrt")
    assert "trtexec" not in text("cpu")


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


def test_names_of_others_are_no_markup_and_no_formulas() -> None:
    rows = [["system", "p50 ms"], ["=cmd|' /C calc'!A1", "-1.5"], ["a\n<script>|\x1b[2J", "+x"]]
    assert to_csv(rows) == ("system,p50 ms\n'=cmd|' /C calc'!A1,-1.5\na\\n<script>|\\x1b[2J,'+x\n")
    assert to_markdown(rows).splitlines()[2:] == [
        "| =cmd\\|' /C calc'!A1 | -1.5 |",
        "| a\\n&lt;script>\\|\\x1b[2J | +x |",
    ]
