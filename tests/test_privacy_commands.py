"""fedloom fleet keys and fedloom privacy, as a user calls them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fedloom.cli import main
from tests.conftest import write_job


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_keys_are_made_once_and_rotated_by_name(tiny_job: Path, own_clients: Path) -> None:
    first = call("fleet", "keys", str(tiny_job), "--json")
    assert first.exit_code == 0, first.output
    made = json.loads(first.stdout)
    assert made["made"] == [f"c{i}" for i in range(6)]
    assert json.loads(call("fleet", "keys", str(tiny_job), "--json").stdout)["made"] == []
    rotated = json.loads(call("fleet", "keys", str(tiny_job), "--rotate", "c2", "--valid-days", "30", "--json").stdout)
    assert rotated["made"] == ["c2"]
    assert rotated["keys"]["c2"]["public"] != made["keys"]["c2"]["public"]
    assert rotated["keys"]["c2"]["expires"] is not None
    assert rotated["keys"]["c1"] == made["keys"]["c1"]
    registry = next(own_clients.rglob("registry.json")).read_text()
    assert made["keys"]["c2"]["public"] in registry  # among the retired
    for path in own_clients.rglob("identity.pem"):
        assert path.stat().st_mode & 0o077 == 0
        secret = path.read_text().splitlines()[1]
        assert secret not in registry + first.output
    assert "c2  " in call("fleet", "keys", str(tiny_job)).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--rotate", "nobody"], 2, "client 'nobody' is not in fleet"),
        (["--valid-days", "0"], 2, "0 is not in the range"),
    ],
)
def test_keys_that_cannot_be_made(tiny_job: Path, arguments: list[str], code: int, words: str) -> None:
    done = call("fleet", "keys", str(tiny_job), *arguments)
    assert (done.exit_code, words in done.output) == (code, True), done.output


def test_clients_trust_the_servers_that_they_are_told(tmp_path: Path) -> None:
    secure = {"enabled": True, "protocol": "two_server"}
    privacy = {"differential_privacy": {"enabled": False}, "secure_aggregation": secure}
    changes: dict[str, Any] = {"differential_privacy": None, "secure_aggregation": None, "privacy_config": privacy}
    job = str(write_job(tmp_path / "two", min_clients=4, **changes))
    servers = json.loads(call("fleet", "keys", job, "--json").stdout)["servers"]
    assert set(servers) == {"first", "second"}
    assert servers["first"] != servers["second"]
    assert f"second server  {servers['second']}" in call("fleet", "keys", job).stdout
    told = call("fleet", "keys", job, "--second-server", "ab" * 32, "--json")
    assert json.loads(told.stdout)["servers"] == {"first": servers["first"], "second": "ab" * 32}
    done = call("fleet", "keys", job)
    assert (done.exit_code, "clients of fleet" in done.output) == (2, True), done.output
    done = call("fleet", "keys", job, "--first-server", "ab")
    assert (done.exit_code, "is no key of the first server" in done.output) == (2, True), done.output
    done = call("fleet", "keys", str(write_job(tmp_path / "tiny")), "--first-server", "ab" * 32)
    assert (done.exit_code, "has no two servers" in done.output) == (2, True), done.output


def test_a_damaged_registry_is_not_replaced(tiny_job: Path, own_clients: Path) -> None:
    call("fleet", "keys", str(tiny_job))
    registry = next(own_clients.rglob("registry.json"))
    for damage in (b"", b"[]", b'{"fleet": 1}'):
        registry.write_bytes(damage)
        done = call("fleet", "keys", str(tiny_job))
        assert (done.exit_code, "is damaged" in done.output) == (2, True)
        assert registry.read_bytes() == damage


def test_a_folder_that_cannot_be_written(tiny_job: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDLOOM_CLIENTS", str(tmp_path / "file" / "below"))
    done = call("fleet", "keys", str(tiny_job))
    assert (done.exit_code, "cannot keep the clients' keys" in done.output) == (2, True), done.output
    assert os.environ["FEDLOOM_CLIENTS"] in done.output


def test_epsilon_and_calibrate() -> None:
    common = ["--sampling-rate", "0.1", "--rounds", "100", "--delta", "1e-5", "--json"]
    rdp = call("privacy", "epsilon", "--noise-multiplier", "2", *common, "--accountant", "rdp")
    assert json.loads(rdp.stdout) == {"epsilon": pytest.approx(2.5806, abs=5e-5)}
    pld = call("privacy", "epsilon", "--noise-multiplier", "2", *common)
    assert json.loads(pld.stdout) == {"epsilon": pytest.approx(2.3374, abs=5e-5)}
    noise = call("privacy", "calibrate", "--epsilon", "2.5806", *common, "--accountant", "rdp")
    assert json.loads(noise.stdout) == {"noise_multiplier": pytest.approx(2.0, abs=1e-3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--noise-multiplier": "0"}, "noise multiplier must be positive"),
        ({"--noise-multiplier": "nan"}, "noise multiplier must be positive"),
        ({"--sampling-rate": "0"}, "sampling rate must be above 0"),
        ({"--sampling-rate": "2"}, "sampling rate must be above 0"),
        ({"--delta": "0"}, "delta must be between 0 and 1"),
        ({"--rounds": "0"}, "0 is not in the range"),
        ({"--rounds": "many"}, "not a valid integer"),
        ({"--accountant": "gdp"}, "'gdp' is not one of"),
    ],
)
def test_bad_numbers_get_a_sentence_and_exit_code_2(change: dict[str, str], words: str) -> None:
    options = {"--noise-multiplier": "1", "--sampling-rate": "0.1", "--rounds": "10", "--delta": "1e-5", **change}
    done = call("privacy", "epsilon", *(part for pair in options.items() for part in pair))
    assert (done.exit_code, words in done.output) == (2, True), done.output
    assert "Traceback" not in done.output
