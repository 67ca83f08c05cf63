"""YAML and JSON made to be expensive, deep or odd."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from artefacts.documents import parse_json
from artefacts.yaml_documents import parse_yaml

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # No ":" inside numbers: base 60 is text here.
    | st.text(st.characters(categories=("L", "N", "Zs")), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcé", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_values_come_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True).encode()) == value


ALIASES = b"a: &a [x, x]\n" + b"".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n".encode() for n in range(20)
)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (ALIASES, "an alias"),
        (b"&a [*a]", "an alias"),
        (b"a: " + b"9" * 5000, "a number of 5000 characters"),
        (b"a: " + b"9" * 500 + b".5", "a number of 502 characters"),
        (b"[" * 65 + b"]" * 65, "over 50000 parts or 64 levels"),
        (b"[" + b"1," * 60_000 + b"]", "over 50000 parts"),
        (b"a: 1\na: 2", "key a twice"),
        (b"? [1]\n: 2", "a key that is no plain value"),
        (b"!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"a: 2020-99-99", "month must be"),
        (b"!!timestamp x", "groupdict"),
        (b"!!map [a]", "unpack"),
        (b"\xff\xfe\x00", "unacceptable|incomplete|truncated"),
        (b"<<: [3]", "merge"),
    ],
)
def test_yaml_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_yaml(raw)


def test_base_60_is_text_and_costs_nothing() -> None:
    long = "1" + ":59" * 20_000
    assert parse_yaml(f"a: {long}".encode()) == {"a": long}
    assert parse_yaml(b"a: 1:30\nb: 1_000\nc: 0x10") == {"a": "1:30", "b": 1000, "c": 16}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"1" * 5000, "4300"),
        (b'{"\\ud800": 1}', "surrogates"),
        (b'"a\\uDC00"', "surrogates"),
        (b"\xff", "decode"),
    ],
)
def test_json_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(raw)


def test_json_that_is_allowed() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "😀"
    assert parse_json(b"[Infinity]", infinite=True) == [float("inf")]
    assert parse_json('{"é": 1}'.encode("utf-16")) == {"é": 1}
