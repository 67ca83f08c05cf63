"""The table of operators: that it speaks of ONNX's, and that its columns fit each other."""

from __future__ import annotations

import pytest
from onnx import defs

from graphs.operators import (
    CODE_COPYING_OPS,
    EXACT_OPS,
    HALF_RISKS,
    INTEGER_OPS,
    MAC_OPS,
    OPERATORS,
    PAIR_OPS,
    POSITIVE_OPS,
    RANGE_KEEPING_OPS,
    REARRANGING_OPS,
    RECURRENT_OPS,
    ROUNDED_OPS,
    SHIFT_KEEPING_OPS,
    WEIGHTED_OPS,
    Operator,
)


@pytest.mark.parametrize("name", [name for name in OPERATORS if "." not in name])
def test_each_operator_is_one_of_onnx(name: str) -> None:
    assert any(schema.name == name for schema in defs.get_all_schemas_with_history())


def test_other_domains_are_in_front() -> None:
    assert {name.rpartition(".")[0] for name in OPERATORS} == {"", "com.microsoft"}


def test_no_line_says_nothing() -> None:
    assert not [name for name, operator in OPERATORS.items() if operator == Operator()]


def test_columns_fit_each_other() -> None:
    assert {"Conv", "ConvTranspose", "Gemm", "MatMul"} == WEIGHTED_OPS
    assert WEIGHTED_OPS | RECURRENT_OPS | {"Einsum"} == MAC_OPS
    # What only rearranges keeps everything there is to keep.
    assert REARRANGING_OPS <= CODE_COPYING_OPS & RANGE_KEEPING_OPS & SHIFT_KEEPING_OPS
    assert not EXACT_OPS & ROUNDED_OPS
    assert not INTEGER_OPS & (CODE_COPYING_OPS | WEIGHTED_OPS | PAIR_OPS)
    assert not PAIR_OPS & EXACT_OPS  # folded, they would no longer say INT8
    assert not POSITIVE_OPS & RANGE_KEEPING_OPS
    assert not set(HALF_RISKS) & WEIGHTED_OPS
