from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
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
from benchmarks.report.document import Report
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


def test_names_of_others_are_no_markup_and_no_formulas() -> None:
    rows = [["system", "p50 ms"], ["=cmd|' /C calc'!A1", "-1.5"], ["a\n<script>|\x1b[2J", "+x"]]
    assert to_csv(rows) == ("system,p50 ms\n'=cmd|' /C calc'!A1,-1.5\na\\n<script>|\\x1b[2J,'+x\n")
    assert to_markdown(rows).splitlines()[2:] == [
        "| =cmd\\|' /C calc'!A1 | -1.5 |",
        "| a\\n&lt;script>\\|\\x1b[2J | +x |",
    ]
