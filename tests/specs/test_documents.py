"""Reading YAML: YAML 1.2 scalars, positions, limits, and clear refusals."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.specs.documents import MAX_BYTES, load_document, parse_document
from fedloom.specs.problems import SpecError


def messages(error: pytest.ExceptionInfo[SpecError]) -> str:
    return str(error.value)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-5", 1e-5),
        ("1E3", 1000.0),
        ("12e03", 12000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.1", -0.1),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("-7", -7),
        ("1_000", "1_000"),
        ("190:20", "190:20"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ('"1"', "1"),
        ("2024-11-15", "2024-11-15"),
        ("2024-11-15T00:00:00Z", "2024-11-15T00:00:00Z"),
        ("-.inf", -math.inf),
        (".INF", math.inf),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("! 5", "5"),
        ("1.0.0", "1.0.0"),
        ("e5", "e5"),
        (".", "."),
        ("-", [None]),
        ("1e400", math.inf),
        ("١", "١"),
    ],
)
def test_scalars_follow_yaml_1_2(scalar: str, value: object) -> None:
    document = parse_document(f"k:\n  {scalar}\n", "f.yaml")
    assert document.data["k"] == value
    assert type(document.data["k"]) is type(value)


def test_nan_is_read_as_nan() -> None:
    assert math.isnan(parse_document("k: .nan", "f").data["k"])


def test_positions_of_keys_items_and_missing_places() -> None:
    document = parse_document("a:\n  b: 1\n  list:\n    - x\n    - {c: 2}\nd: *\n".replace("d: *", "d: z"), "f")
    assert document.positions[("a",)] == (1, 1)
    assert document.positions[("a", "b")] == (2, 3)
    assert document.positions[("a", "list", 1)] == (5, 7)
    assert document.positions[("a", "list", 1, "c")] == (5, 8)
    assert document.position(("a", "list", 7, "q")) == (3, 3)
    assert document.position(("nowhere",)) == (1, 1)


def test_aliases_are_shared_values() -> None:
    document = parse_document("a: &x {p: 1}\nb: *x\nc: [*x]\n&k d: *k\n", "f")
    assert document.data == {"a": {"p": 1}, "b": {"p": 1}, "c": [{"p": 1}], "d": "d"}


def test_json_is_yaml() -> None:
    data = {"a": [1, 2.5, None, True, {"ü": 'é"\\\n'}], "b": {}}
    assert parse_document(json.dumps(data, indent=1), "f.json").data == data


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [" + ",".join([f"*{before}"] * 10) + "]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LONG = "a: &a " + "x" * 500_000 + "\nb: [" + ",".join(["*a"] * 50) + "]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("---\n...\n", "is empty"),
        ("hello", "not a YAML mapping"),
        ("a: 1\n---\nb: 2\n", "several YAML documents"),
        ("a: 1\na: 2\n", "f:2:1: error: a: the key 'a' stands here twice, first at 1:1"),
        ("1: a", "a key must be text, this one is a number"),
        ("true: a", "true or false"),
        ("? [a]\n: 1", "a key must be text, this one is a collection"),
        ("? {a: {b: c}}\n: 1", "a key must be text"),
        ("base: &b {x: 1}\nd:\n  <<: *b\n", "merge keys (<<) are not supported"),
        ("a: !!python/object/apply:os.system ['ls']", "the tag !!python/object/apply:os.system is not allowed"),
        ("a: !!binary aGk=", "!!binary is not allowed"),
        ("a: !mine 1", "the tag !mine is not allowed"),
        ("a: !!int x", "not of the type that its tag names"),
        ("a: [1", "is not YAML"),
        ("a:\n\t- b", "is not YAML"),
        ("a: b: c", "put text that holds ': ' in quotes"),
        ("a: &a [*a]", "refers to itself"),
        ("a: *b", "b"),
        ("a: " + "[" * 80 + "]" * 80, "nested too deep"),
        ("a: &a [[[" + "1" + "]]]\n" + "b: " + "[" * 62 + "*a" + "]" * 62, "nested too deep"),
        (BOMB, "once its aliases are expanded"),
        (LONG, "characters once its aliases are expanded"),
        ("a: " + "9" * 5000, "too long"),
        ("a: 1\x00b: 2", "NUL"),
        ("a: \x07", "is not YAML"),
        ('a: "\\ud800"', "f"),
        ("# T\n\n## Part\n\n```yaml\na: 1\n```\n", "Markdown"),
        ("some text\n```yaml\na: 1\n```\n", "Markdown"),
    ],
)
def test_refused_texts(text: str, expected: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_document(text, "f")
    assert expected in messages(error)
    assert all(problem.severity == "error" for problem in error.value.problems)


def test_all_duplicates_are_reported_at_once() -> None:
    with pytest.raises(SpecError) as error:
        parse_document("a: 1\na: 2\nb:\n  c: 1\n  c: {x: 1, x: 2}\na: 3\n", "f")
    found = [(problem.line, problem.column, problem.path) for problem in error.value.problems]
    assert found == [(2, 1, "a"), (5, 3, "b.c"), (5, 13, "b.c.x"), (6, 1, "a")]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    with big.open("wb") as stream:
        stream.truncate(50 * MAX_BYTES)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nname: Zürich\n".encode("latin-1"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cases = {
        big: "too large",
        latin: "latin.yaml:2:8: error: is not UTF-8 text",
        fifo: "not a regular file",
        tmp_path: "is a folder",
        tmp_path / "none.yaml": "no such file",
        big / "x": "cannot be read",
        Path("nul\0"): "cannot be read",
        tmp_path / ("n" * 400): "cannot be read",
    }
    for path, expected in cases.items():
        with pytest.raises(SpecError) as error:
            load_document(path)
        assert expected in messages(error)


def test_byte_order_mark_and_shown_name(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = load_document(path, "shown.yaml")
    assert (document.data, document.file) == ({"a": 1}, "shown.yaml")


def test_the_parser_without_libyaml_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: {b: [1, 2e3, 'x', on]}\nc: >\n  folded\n  text\nd: &d [1]\ne: *d\n"
    fast = parse_document(text, "f")
    monkeypatch.setattr("fedloom.specs.documents._LOADER", yaml.SafeLoader)
    slow = parse_document(text, "f")
    assert (fast.data, dict(fast.positions)) == (slow.data, dict(slow.positions))


YAML_ALPHABET = st.text(alphabet=list("ab1 \n\t-:?[]{},#&*!|>'\"%@`.~<0xe+_\\u"), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.one_of(YAML_ALPHABET, st.text(max_size=60)), st.sampled_from(["CSafeLoader", "SafeLoader"]))
def test_arbitrary_text_is_read_or_refused(text: str, loader: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedloom.specs.documents._LOADER", getattr(yaml, loader, yaml.SafeLoader))
        try:
            document = parse_document(text, "f")
        except SpecError:
            return
    dumped = json.dumps(document.data)
    assert json.dumps(json.loads(dumped)) == dumped
    assert () in document.positions


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "raw.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(SpecError):
        load_document(path)


# Without U+2028 and U+2029: to the YAML reader they end a line, also within quotes, as YAML 1.1 has it.
KEYS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, JSON, min_size=1, max_size=5))
def test_json_documents_round_trip(data: dict[str, object]) -> None:
    assert parse_document(json.dumps(data, ensure_ascii=False), "f").data == data
