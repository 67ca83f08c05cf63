"""YAML that somebody else may have written: plain values, bounded before they exist."""

from __future__ import annotations

from typing import Any

import yaml

from artefacts.documents import check_text

__all__ = ["parse_yaml"]

_MOST_EVENTS = 50_000  # of a YAML file: each entry and each bracket is one; read in a second
_MOST_DEPTH = 64
_LONGEST_NUMBER = 400  # characters: more than any float64 needs
_DAMAGED = (RecursionError, TypeError, OverflowError, LookupError, AttributeError)

# In C where libyaml is there: 20 times as fast.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Plain values only: no key twice, and no number in base 60 (1:59:59 is text)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict | set):
                raise yaml.YAMLError("a key that is no plain value")
            if key in seen:
                raise yaml.YAMLError(f"key {str(key)[:40]} twice")
            seen.add(key)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def _number(loader: Any, node: Any) -> Any:
    """A number of bounded length; Python refuses integers of more than 4,300 digits later."""
    text = str(loader.construct_scalar(node))
    if ":" in text:
        return text
    if len(text) > _LONGEST_NUMBER:
        raise yaml.YAMLError(f"a number of {len(text)} characters")
    kind = node.tag.rpartition(":")[2]
    return getattr(yaml.SafeLoader, f"construct_yaml_{kind}")(loader, node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def parse_yaml(raw: bytes) -> Any:
    """The value of a YAML (or JSON) text.

    Aliases are refused (a few lines of them multiply without end), and so is what has more than
    50,000 parts or is nested more than 64 deep.

    Raises:
        ValueError: it is none, or over these bounds.
    """
    try:
        _check_extent(raw)
        value = yaml.load(raw, _Loader)
    except ValueError:
        raise
    except (yaml.YAMLError, *_DAMAGED) as err:  # what its constructors of tagged values raise
        raise ValueError(" ".join(str(err).split()) or type(err).__name__) from err
    check_text(raw.decode("latin-1"), value)
    return value


def _check_extent(raw: bytes) -> None:
    depth = 0
    for number, event in enumerate(yaml.parse(raw, Loader=_Base)):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name)")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if number > _MOST_EVENTS or depth > _MOST_DEPTH:
            raise yaml.YAMLError(f"over {_MOST_EVENTS} parts or {_MOST_DEPTH} levels of brackets")
