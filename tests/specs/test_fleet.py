"""Fleets in their three file forms, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.specs.fleet import Fleet, load_fleet
from fedloom.specs.locations import Location, parse_location
from fedloom.specs.problems import SpecError

HEAD = 'fleet_metadata: {fleet_id: f, version: "1.2.0"}\n'
ROWS: list[dict[str, Any]] = [
    {"client_id": "b", "data": "dataset:d/b.parquet", "data_samples": 20, "hours": 1.5, "site": "n", "ok": True},
    {"client_id": "a", "data": "s3://bucket/a.parquet", "data_samples": 10, "hours": 2.0, "site": "s", "ok": False},
    {"client_id": "c", "data": "sub/c.parquet", "data_samples": None, "hours": 3.0, "site": "n", "ok": None},
]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    def cell(value: Any) -> str:
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    lines = [",".join(rows[0]), *(",".join(cell(value) for value in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_yaml(path: Path, rows: list[dict[str, Any]]) -> Path:
    import json

    path.write_text(HEAD + "clients:\n" + "".join(f"  - {json.dumps(row)}\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_fleet(path)
    return [f"{problem.line}: {problem.path}: {problem.message}" for problem in caught.value.problems]


def test_all_forms_are_the_same_fleet(tmp_path: Path) -> None:
    fleets = [
        load_fleet(write_csv(tmp_path / "f.csv", ROWS)),
        load_fleet(write_yaml(tmp_path / "f.yaml", ROWS[::-1])),
        load_fleet(write_parquet(tmp_path / "f.parquet", ROWS[1:] + ROWS[:1])),
    ]
    assert len({fleet.digest for fleet in fleets}) == 1
    for fleet in fleets:
        assert len(fleet) == 3
        assert fleet.clients == ("a", "b", "c")
        assert fleet.data == ("s3://bucket/a.parquet", "dataset:d/b.parquet", "sub/c.parquet")
        assert dict(fleet.attributes) == {
            "data_samples": (10, 20, None),
            "hours": (2.0, 1.5, 3.0),
            "ok": (False, True, None),
            "site": ("s", "n", "n"),
        }
        assert fleet.root == tmp_path
    assert (fleets[0].fleet_id, fleets[1].fleet_id, fleets[1].version) == ("f", "f", "1.2.0")


def test_the_digest_sees_every_change(tmp_path: Path) -> None:
    seen = {load_fleet(write_csv(tmp_path / "f.csv", ROWS)).digest}
    for key, value in (("client_id", "z"), ("data", "z.parquet"), ("data_samples", 21), ("site", "s")):
        seen.add(load_fleet(write_csv(tmp_path / "f.csv", [ROWS[0] | {key: value}, *ROWS[1:]])).digest)
    assert len(seen) == 5


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_clients_file_beside(tmp_path: Path, form: str) -> None:
    write = write_csv if form == "csv" else write_parquet
    write(tmp_path / f"roster.{form}", ROWS)
    spec = tmp_path / "fleet.yaml"
    types = "{data_samples: integer, hours: number, site: string, ok: boolean}"
    spec.write_text(HEAD + f"clients_file: roster.{form}\nattributes: {types}\n")
    fleet = load_fleet(spec)
    assert (fleet.fleet_id, fleet.version, len(fleet)) == ("f", "1.2.0", 3)


def test_declared_types_read_numbers_as_text(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("client_id,data,model\na,x,787\nb,y,A320\n")
    (tmp_path / "f.yaml").write_text(HEAD + "clients_file: r.csv\nattributes: {model: string}\n")
    assert load_fleet(tmp_path / "f.yaml").attributes["model"] == ("787", "A320")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("client_id,data\n", "has no clients"),
        ("client_id\na\n", "column 'data' is missing"),
        ("client,data\na,x\n", "column 'client_id' is missing"),
        ("client_id,data,x,x\na,x,1,2\n", "column 'x' is there twice"),
        ("client_id,data,\na,x,1\n", "column 3 has no name"),
        ("client_id,data,a b\na,x,1\n", "'a b' is no column name"),
        ("client_id,data\na,x\n\na,y\n", "4: client_id: client 'a' is there twice, first in line 2"),
        ("client_id,data\n,x\n", "2: client_id: the client id is empty"),
        ("client_id,data\n../a,x\n", "2: client_id: '../a' is no client id"),
        ("client_id,data\n.a,x\n", "'.a' is no client id"),
        ("client_id,data\na\x07,x\n", "is no client id"),
        (f"client_id,data\n{'a' * 129},x\n", "is no client id"),
        ("client_id,data\na,\n", "2: data: the data location is missing"),
        ("client_id,data\na,/etc/passwd\n", "absolute path"),
        ("client_id,data\na,../x\n", "leads out of its folder"),
        ("client_id,data\na,x,y\n", "2: : the row has 3 fields, the header has 2"),
        ("client_id,data,n\na,x,1\nb,y,nan\n", "3: n: nan is not a finite number"),
        ("client_id,data,n\na,x,1\nb,y,-inf\n", "3: n: -inf is not a finite number"),
        ("client_id,data,n\na,x,1\nb,y,2\nc,z,three\n", "4: n: column 'n' mixes types: this value is string"),
        ("client_id,data,n\na,x,true\nb,y,maybe\nc,z,true\n", "3: n: column 'n' mixes types"),
        ("client_id,data,data_samples\na,x,many\n", "must be integer or number"),
        ("client_id,data,hardware_healthy\na,x,1\n", "must be boolean"),
        ('client_id,data\n"a,x\n', "is not CSV"),
        ("client_id;data\na;x\n", "1: : the columns are not separated by commas"),
        ("client_id,data\na,x\0\n", "NUL"),
    ],
)
def test_csv_refuses(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(text, newline="")
    assert any(expected in problem for problem in problems(path)), problems(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "clients: []\n", "clients is empty"),
        (HEAD, "either under 'clients' or in a 'clients_file'"),
        (HEAD + "clients: [{client_id: a, data: x}]\nclients_file: a.csv\n", "either under 'clients'"),
        (HEAD + "clients_file: ../a.csv\n", "leads out of its folder"),
        (HEAD + "clients_file: no.csv\n", "there is no such file"),
        (HEAD + "clients_file: a.xlsx\n", "clients_file"),
        (HEAD + "attributes: {n: decimal}\nclients: [{client_id: a, data: x, n: 1}]\n", "attributes.n"),
        (HEAD + "attributes: {site: string}\nclients: [{client_id: a, data: x, sit: n}]\n", "does not declare 'sit'"),
        (HEAD + "attributes: {site: string}\nclients: [{client_id: a, data: x}]\n", "no client has it"),
        (HEAD + "attributes: {n: integer}\nclients: [{client_id: a, data: x, n: 1.5}]\n", "not of the type integer"),
        (HEAD + "clients:\n  - {client_id: a, data: x}\n  - {client_id: a, data: y}\n", "4: client_id: client 'a'"),
        (HEAD + "clients:\n  - {client_id: a, data: x, n: 1}\n  - {client_id: b, data: y, n: one}\n", "mixes types"),
        (HEAD + "clients: [{client_id: 7, data: x}]\n", "clients[0].client_id"),
        (HEAD + "clients: [{client_id: a}]\n", "data"),
        (HEAD + "clients: [{client_id: a, data: x, n: .nan}]\n", "n"),
        (HEAD + "clients: [{client_id: a, data: x, n: [1]}]\n", "n"),
    ],
)
def test_yaml_refuses(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    assert any(expected in problem for problem in problems(path)), problems(path)


def test_parquet_refuses(tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 no")
    assert "is no Parquet file" in problems(bad)[0]
    whole = write_parquet(tmp_path / "whole.parquet", ROWS).read_bytes()
    bad.write_bytes(whole[:10] + bytes(60) + whole[70:])
    assert "is no Parquet file" in problems(bad)[0]
    nested = write_parquet(tmp_path / "nested.parquet", [{"client_id": "a", "data": "x", "n": [1]}])
    assert "column 'n' has the type list" in problems(nested)[0]
    missing = write_parquet(tmp_path / "nan.parquet", [{"client_id": "a", "data": "x", "n": float("nan")}])
    assert "row 1, n: nan is not a finite number" in problems(missing)[0]
    none = tmp_path / "none.parquet"
    pq.write_table(pa.table({"client_id": pa.array([], pa.string()), "data": pa.array([], pa.string())}), none)
    assert "has no clients" in problems(none)[0]


def test_a_symbolic_link_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "fleet"
    inside.mkdir()
    (tmp_path / "secret.parquet").write_text("x")
    os.symlink("../secret.parquet", inside / "a.parquet")
    os.symlink("..", inside / "up")
    path = write_csv(
        inside / "f.csv", [{"client_id": "a", "data": "a.parquet"}, {"client_id": "b", "data": "up/secret.parquet"}]
    )
    assert [problem.split(":")[0] for problem in problems(path)] == ["2", "3"]


def test_many_problems_are_counted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "f.csv", [{"client_id": f"c{n}", "data": f"/{n}"} for n in range(100)])
    found = problems(path)
    assert len(found) == 21
    assert "80 more problems" in found[-1]


def test_a_large_fleet(tmp_path: Path) -> None:
    rows = [{"client_id": f"c{n:06}", "data": f"s/{n}.parquet", "data_samples": n} for n in range(20_000)]
    fleet = load_fleet(write_csv(tmp_path / "f.csv", rows))
    assert len(fleet) == 20_000
    assert fleet.digest == load_fleet(write_parquet(tmp_path / "f.parquet", rows)).digest


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("a/b.parquet", Location("file", "a/b.parquet")),
        ("./a.parquet", Location("file", "a.parquet")),
        ("dataset:imu-watch/s01.parquet", Location("dataset", "s01.parquet", "imu-watch")),
        ("s3://bucket/key?versionId=1", Location("url", "s3://bucket/key?versionId=1")),
    ],
)
def test_locations(text: str, location: Location) -> None:
    assert parse_location(text) == location
    assert parse_location(str(location)) == location


@pytest.mark.parametrize(
    "text",
    ["", " ", "/a", "../a", "a/../../b", "a\\b", "C:/a", "a/", ".", "dataset:x", "dataset:/x", "dataset:x/../y",
     "dataset:x//y", "file:///etc/passwd", "local://x", "s3://user:secret@host/x", "a\nb", " a", "s3://"],
)  # fmt: skip
def test_locations_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_location(text)


@given(st.text(max_size=30))
def test_a_file_location_stays_inside(text: str) -> None:
    try:
        location = parse_location(text)
    except ValueError:
        return
    if location.kind == "file":
        assert os.path.normpath(os.path.join("/root", location.path)).startswith("/root/")


def test_a_fleet_is_a_value() -> None:
    fleet = Fleet("f", "1.0.0", Path(), ("a",), ("x",), {})
    with pytest.raises(AttributeError):
        fleet.version = "2.0.0"  # type: ignore[misc]
