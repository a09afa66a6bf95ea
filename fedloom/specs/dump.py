"""Writing YAML for people: keys in their order, text of many lines as a block, short lists on a line, no anchors."""

from __future__ import annotations

import re
from typing import Any

import yaml

_WIDTH = 110
_NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0[ox][0-9a-fA-F]+")
"""Text that some reader of YAML takes for a number; PyYAML does not know that of all."""


_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same text, but for letters beyond the first plane


class _Dumper(_BASE):  # type: ignore[misc]
    """A dumper of our own, because other packages change the global one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style: str | None = '"' if "'" in text and '"' not in text else None
    if "\n" in text:
        style = "|"
    elif _is_long(text):
        style = ">"
    elif _NUMBER.fullmatch(text):
        style = "'"
    node: yaml.ScalarNode = dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)
    return node


def _is_long(text: str) -> bool:
    return len(text) > _WIDTH and " " in text and text == text.strip()


def _list(dumper: _Dumper, items: list[Any]) -> yaml.SequenceNode:
    node: yaml.SequenceNode = dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=all(map(_is_short, items))
    )
    for item in node.value:
        if isinstance(item, yaml.MappingNode) and _fits(item):
            item.flow_style = True
    return node


def _is_short(value: Any) -> bool:
    return not isinstance(value, dict | list) and "\n" not in str(value) and not _is_long(str(value))


def _fits(node: yaml.MappingNode) -> bool:
    """Whether a mapping has a few plain values that stand on one line together."""
    parts = [part for pair in node.value for part in pair]
    plain = all(isinstance(part, yaml.ScalarNode) and part.style not in ("|", ">") for part in parts)
    return plain and sum(len(part.value) + 3 for part in parts) < _WIDTH - 30


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML 1.2 text that PyYAML and fedloom read back alike."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    return text
