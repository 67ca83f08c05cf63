"""Placement of every network as text; ``pytest --update-golden`` rewrites the files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphs.files import load_model
from quantization.placement import Placement, place
from quantization.placement.table import rule_table
from quantization.prepare.prepare import prepare
from tests.networks import NETWORKS

FOLDER = Path(__file__).parent / "placement"
DOCUMENT = Path(__file__).parents[2] / "docs" / "placement.md"
BEGIN, END = "<!-- rules: begin -->\n", "<!-- rules: end -->\n"
PROFILES = ("tensorrt", "cpu", "dla")


def text(model: onnx.ModelProto, placement: Placement) -> str:
    """Nodes with what they read through Q/DQ; ``tensor<above`` takes the range of ``above``."""
    reads: dict[str, list[str]] = {}
    for edge in placement.activations:
        above = "" if edge.observed == edge.tensor else f"<{edge.observed}"
        reads.setdefault(edge.node, []).append(f"{edge.index}:{edge.tensor}{above}")
    for weight in placement.weights:
        axis = "tensor" if weight.axis is None else f"axis {weight.axis}"
        reads.setdefault(weight.node, []).append(f"{weight.index}:{weight.tensor} per {axis}")
    order = [node.name for node in model.graph.node]
    lines = [f"profile {placement.profile}", f"int8 work {placement.int8_mac_share(model):.4f}"]
    for name in sorted(reads, key=order.index):
        mark = "int8 " if name in placement.int8_nodes else "reads"
        lines.append(f"{mark} {name}  {'  '.join(reads[name])}")
    lines += [f"int8  {n}  behind Q/DQ above" for n in placement.int8_nodes if n not in reads]
    lines += [f"share {' '.join(group)}" for group in placement.shared]
    lines += [f"fixed {name} {amax}" for name, amax in placement.fixed.items()]
    lines += [f"extra {name}" for name in placement.extra]
    lines += [f"float {f.node} {f.op_type} {f.rule}: {f.why}" for f in placement.floating]
    return "\n".join([*lines, ""])


def compare(path: Path, found: str, *, update: bool) -> None:
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert path.is_file(), f"{path} is missing; run pytest --update-golden"
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("profile", PROFILES)
def test_network(name: str, profile: str, update_golden: bool) -> None:
    model = NETWORKS[name]()
    found = text(model, place(model, profile=profile))
    compare(FOLDER / f"{name}.{profile}.txt", found, update=update_golden)


@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet20",
        "kws_dscnn_fp32",
        "mobilenet_v1_0.25_128_fp32",
        "mobilenet_v2_1.0_224_fp32",
        "resnet8_cifar10_fp32",
        "yolox_nano",
    ],
)
@pytest.mark.parametrize("profile", ["tensorrt", "cpu"])
def test_real_model(name: str, profile: str, assets: Path, update_golden: bool) -> None:
    model = prepare(load_model(assets / "models" / f"{name}.onnx"))
    found = text(model, place(model, profile=profile))
    compare(FOLDER / f"{name}.{profile}.txt", found, update=update_golden)


def test_table_in_the_documentation_is_current(update_golden: bool) -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    before, rest = document.split(BEGIN)
    table, after = rest.split(END)
    if update_golden:
        table = rule_table()
        DOCUMENT.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    assert table == rule_table(), "run pytest --update-golden tests/golden/test_placement.py"
