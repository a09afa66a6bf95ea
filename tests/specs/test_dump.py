"""What is written can be read back, reads well, and is the same text with and without libyaml."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedloom.specs import dump
from fedloom.specs.documents import load_document, parse_document
from fedloom.specs.dump import dump_yaml

TEXT = st.text("abé 1e-5'\"{}:#\n,[]&*!|>%@`\\", max_size=160)
NUMBERS = st.from_regex(r"[-+.0-9exo_]{1,6}", fullmatch=True)
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(-1e9, 1e9)
    | TEXT
    | st.from_regex(r"[-+.0-9exo_]{1,6}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1, max_size=5), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=5), DATA, min_size=1))
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    assert parse_document(dump_yaml(data), "x.yaml").data == data
    assert yaml.safe_load(dump_yaml(data)) == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": ["x", 1, True]}, "a: [x, 1, true]\n"),
        ({"a": [{"b": "c", "d": 1}]}, "a:\n- {b: c, d: 1}\n"),
        ({"a": {"b": "c"}}, "a:\n  b: c\n"),
        ({"a": "two\nlines\n"}, "a: |\n  two\n  lines\n"),
        ({"a": "'x' != 'y'"}, "a: \"'x' != 'y'\"\n"),
        ({"a": "yes", "b": "1e-5", "c": "12e7", "d": "0o7"}, "a: 'yes'\nb: '1e-5'\nc: '12e7'\nd: '0o7'\n"),
    ],
)
def test_it_reads_well(data: Any, text: str) -> None:
    assert dump_yaml(data) == text
    assert parse_document(text, "x").data == data


def test_manifests_are_the_same_text_without_libyaml() -> None:
    folder = Path(__file__).parents[2] / "deploy" / "argo" / "examples"

    class Plain(yaml.SafeDumper):
        ignore_aliases = dump._Dumper.ignore_aliases

    Plain.add_representer(str, dump._text)
    Plain.add_representer(list, dump._list)
    for path in folder.rglob("*.yaml"):
        data = load_document(path).data
        assert yaml.dump(data, Dumper=Plain, sort_keys=False, allow_unicode=True, width=110) == dump_yaml(data)
