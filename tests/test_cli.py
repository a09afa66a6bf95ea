"""The command line as a user meets it: output, errors, exit codes."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fedloom.cli import main
from fedloom.specs.documents import load_document
from tests.conftest import write_job

Fedloom = Callable[..., Result]


@pytest.fixture
def fedloom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fedloom:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDLOOM_STORE", raising=False)

    def call(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    return call


def test_simulate_prints_progress_the_gate_and_what_to_find_where(fedloom: Fedloom, tiny_job: Path) -> None:
    done = fedloom("simulate", tiny_job)
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 3, lines
    assert lines[0].startswith("round 1/3  clients 6/6  loss 0.")
    assert "ETA" in lines[0]
    assert "gate     pass: promoted to champion" in done.stdout
    assert Path("fedloom-runs/champions/fl-tiny.json").exists()


def test_json_is_one_object_on_standard_output(fedloom: Fedloom, tiny_job: Path, tmp_path: Path) -> None:
    done = fedloom(
        "simulate", tiny_job, "--json", "--rounds", 2, "--seed", 5, "--store", tmp_path / "s", "--name", "n1"
    )
    result = json.loads(done.stdout)
    assert {"run_id", "plan_digest", "model_digest", "rounds", "metrics", "gate", "store"} <= set(result)
    assert result["rounds"] == 2
    assert result["run_id"].endswith("-n1")
    assert result["store"] == str(tmp_path / "s")


def test_a_withheld_model_has_an_exit_code_of_its_own(fedloom: Fedloom, tmp_path: Path) -> None:
    done = fedloom("simulate", write_job(tmp_path / "job", metrics={"auc": 0.9999}), "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["gate"]["decision"] == "fail"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["simulate", "nowhere"], 2, "there is no such job folder, file or example"),
        (["plan", "aircraft_acel_v1"], 2, "did you mean 'aircraft_accel_v1'?"),
        (["simulate", "JOB", "--rounds", "0"], 2, "0 is not in the range x>=1"),
        (["simulate", "JOB", "--store", "nosuch://x"], 1, "cannot be opened"),
        (["simulate", "JOB", "--name", "a/b"], 2, "run name 'a/b' must be"),
        (["step", "tran", "JOB"], 2, "did you mean 'train'?"),
        (["step", "train", "JOB"], 2, "runs in rounds 1 to 3"),
        (["step", "train", "JOB", "--round", "1"], 2, "needs --shard"),
        (["step", "select", "JOB", "--round", "1", "--shard", "0"], 2, "takes no --shard"),
        (["step", "initialise", "JOB", "--round", "1"], 2, "leave out --round"),
        (["step", "select", "JOB", "--round", "1", "--plan-digest", "beef"], 2, "beef… was asked for"),
        (["step", "evaluate", "JOB", "--round", "1"], 2, "step 'aggregate' of round 1 must run first"),
        (["schema", "jobb"], 2, "there is no schema 'jobb'"),
        (["validate"], 2, "name at least one file or folder"),
        (["data", "prepare", "imu-wach"], 1, "did you mean 'imu-watch'?"),
        (["registry", "show", "nope"], 2, "the registry has no job 'nope'"),
        (["init", "Ünïcode"], 2, "nïcode"),
    ],
)
def test_what_goes_wrong_is_said_in_one_message(
    fedloom: Fedloom, tiny_job: Path, words: list[str], code: int, message: str
) -> None:
    done = fedloom(*[str(tiny_job) if word == "JOB" else word for word in words])
    assert (done.exit_code, message in done.stderr) == (code, True), done.output
    assert "Traceback" not in done.output


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefgh")
)
BAD_JOBS = {
    "empty file": ("", "empty"),
    "bomb": (BOMB, "aliases"),
    "duplicate key": ("job_id: a\njob_id: b\n", "twice"),
    "unknown key": ("job_id: a\nlearnig_rate: 1\n", "did you mean 'learning_rate'"),
    "list": ("- 1\n", "list"),
    "python tag": ("job_id: !!python/object:os.system {}\n", "tag"),
    "nan": ("job_id: fl-a\nepsilon: .nan\n", "nan"),
}


@pytest.mark.parametrize("what", BAD_JOBS)
def test_bad_files_get_errors_with_their_place(fedloom: Fedloom, tmp_path: Path, what: str) -> None:
    text, word = BAD_JOBS[what]
    (tmp_path / "job.yaml").write_text(text)
    done = fedloom("validate", tmp_path / "job.yaml")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert word in done.stdout
    assert f"{tmp_path / 'job.yaml'}:" in done.stdout


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"min_clients": 9}, "max_clients"),
        ({"hyperparameters": {"learning_rate": -1.0, "optimizer": "Adam"}}, "learning_rate"),
        ({"architecture": "Perceptron"}, "Perceptron"),
        ({"batch_size": "16"}, "batch_size"),
        ({"input_schema": "contract.yaml#gyro"}, "gyro"),
        ({"input_schema": "../contract.yaml"}, "folder"),
        ({"input_schema": {"reference": "contract.yaml", "signals": ["a", "c"]}}, "'c'"),
        ({"holdout": "/etc/passwd"}, "absolute"),
        ({"architecture": "Custom", "model_hyperparameters": None}, "custom_class"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_wrong_values_are_named(fedloom: Fedloom, tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    folder = write_job(tmp_path / "job", **changes)
    for command, code in (("validate", 1), ("plan", 2)):
        done = fedloom(command, folder)
        assert done.exit_code == code, done.output
        assert word in done.output


def test_a_custom_class_that_does_not_import_is_refused(fedloom: Fedloom, tmp_path: Path) -> None:
    model = {"architecture": "Custom", "version": "1.0.0", "custom_class": "nowhere.at_all:Net",
             "input_schema": {"reference": "contract.yaml", "signal_group": "imu", "window_size": 8},
             "output_schema": "binary_classification"}  # fmt: skip
    gone = dict.fromkeys(
        ("architecture", "version", "input_schema", "output_schema", "window_size", "model_hyperparameters")
    )
    done = fedloom("simulate", write_job(tmp_path / "job", model_config=model, **gone))
    assert done.exit_code == 2, done.output
    assert "'nowhere.at_all:Net' does not import" in done.stderr


def test_a_custom_class_in_the_jobs_folder_trains(fedloom: Fedloom, tmp_path: Path) -> None:
    model = {"architecture": "Custom", "version": "1.0.0", "custom_class": "tiny_net_of_test:Net",
             "model_hyperparameters": {"width": 4},
             "input_schema": {"reference": "contract.yaml", "signal_group": "imu", "window_size": 8},
             "output_schema": "binary_classification"}  # fmt: skip
    gone = dict.fromkeys(
        ("architecture", "version", "input_schema", "output_schema", "window_size", "model_hyperparameters")
    )
    folder = write_job(tmp_path / "job", model_config=model, **gone)
    (folder / "tiny_net_of_test.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, width):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 1))\n"
    )
    assert "depends on the custom class" in fedloom("plan", folder).stdout
    assert fedloom("simulate", folder).exit_code in (0, 3)


def test_validate_shows_the_normal_form_as_yaml(fedloom: Fedloom, tiny_job: Path, tmp_path: Path) -> None:
    done = fedloom("validate", tiny_job / "job.yaml", "--show")
    shown = tmp_path / "normal.yaml"
    shown.write_text(done.stdout.split("---\n")[1])
    assert load_document(shown).data["job_metadata"]["job_id"] == "fl-tiny"


def test_validate_speaks_json_and_github(fedloom: Fedloom, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", batch_size=0)
    report = json.loads(fedloom("validate", folder, "--format", "json").stdout)
    assert report["valid"] is False
    assert report["problems"][0]["line"] > 0
    line = fedloom("validate", folder, "--format", "github").stdout.splitlines()[0]
    assert line.startswith(f"::error file={folder / 'job.yaml'},line=")


def test_validate_all_finds_every_job_and_says_what_it_skipped(fedloom: Fedloom, tmp_path: Path) -> None:
    write_job(tmp_path / "specs" / "a")
    write_job(tmp_path / "specs" / "deep" / "b", batch_size=0)
    (tmp_path / "specs" / "deploy.yaml").write_text("apiVersion: v1\nkind: Pod\n")
    done = fedloom("validate", "--validate-all", tmp_path / "specs")
    assert done.exit_code == 1
    assert "deep/b/job.yaml" in done.stdout
    assert "deploy.yaml: skipped: a Kubernetes manifest" in done.stdout


@pytest.mark.parametrize("template", ["train", "eval", "aggregate"])
def test_init_writes_a_job_that_validates(fedloom: Fedloom, template: str) -> None:
    assert fedloom("init", "my-job", "--template", template).exit_code == 0
    done = fedloom("validate", "my-job")
    assert done.exit_code == 0, done.output
    assert "not built" not in done.stdout
    assert fedloom("plan", "my-job").exit_code == 0
    assert fedloom("init", "my-job", "--template", template).exit_code == 2


def test_the_registry_is_listed_and_shown(fedloom: Fedloom) -> None:
    assert "fl-aircraft-accel-v1" in fedloom("registry", "list").stdout
    assert "fl-aircraft-accel-v1" not in fedloom("registry", "list", "--state", "draft").stdout
    assert json.loads(fedloom("registry", "show", "aircraft-accel-v1", "--json").stdout)["state"] == "active"


def test_too_few_clients_fail_with_code_one(fedloom: Fedloom, tmp_path: Path) -> None:
    chosen = {"algorithm": "random", "eligibility_criteria": {"min_data_samples": 1000}}
    folder = write_job(tmp_path / "job", client_selection=chosen)
    done = fedloom("simulate", folder)
    assert done.exit_code == 1
    assert "0 of 6 clients are eligible" in done.stderr


CUSTOM = {
    "exits on import": ("import sys; sys.exit(0)", 2, "does not import: SystemExit"),
    "exits when built": ("def __init__(self): import sys; sys.exit(0)", 2, "does not build"),
    "raises in training": (
        "def forward(self, x):\n  if self.training: raise ValueError('odd \x1b[31m')\n  return x[:, 0, :1]",
        2,
        "do not work together",
    ),
    "two outputs": ("def forward(self, x): return x[:, 0, :2]", 2, "needs [2, 1]"),
}


@pytest.mark.parametrize("what", CUSTOM)
def test_whatever_a_custom_class_does_is_an_error_that_names_it(fedloom: Fedloom, tmp_path: Path, what: str) -> None:
    body, code, message = CUSTOM[what]
    done = run_custom(fedloom, tmp_path, what.replace(" ", "_"), body)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert "\x1b" not in done.stderr


def test_what_a_custom_class_prints_is_not_among_the_results(fedloom: Fedloom, tmp_path: Path) -> None:
    body = "def forward(self, x): print('HELLO'); return self.head(x[:, 0])"
    done = run_custom(fedloom, tmp_path, "prints", body, "--json")
    assert json.loads(done.stdout)["rounds"] == 3
    assert "HELLO" in done.stderr


def run_custom(fedloom: Fedloom, folder: Path, name: str, body: str, *options: str) -> Result:
    model = {"architecture": "Custom", "version": "1.0.0", "custom_class": f"net_that_{name}:Net",
             "input_schema": {"reference": "contract.yaml", "signal_group": "imu", "window_size": 8},
             "output_schema": "binary_classification"}  # fmt: skip
    gone = dict.fromkeys(
        ("architecture", "version", "input_schema", "output_schema", "window_size", "model_hyperparameters")
    )
    job = write_job(folder / "job", model_config=model, **gone)
    inside = body if body.startswith("def") else "pass"
    own = "" if "__init__" in body else "  def __init__(self):\n    super().__init__(); self.head = nn.Linear(2, 1)\n"
    text = f"from torch import nn\n{'' if body.startswith('def') else body}\nclass Net(nn.Module):\n{own}  "
    (job / f"net_that_{name}.py").write_text(text + inside.replace("\n", "\n  ") + "\n")
    return fedloom("simulate", job, *options)


def test_a_shard_given_up_by_an_engine_is_recorded(fedloom: Fedloom, tiny_job: Path) -> None:
    for words in (["initialise"], ["select", "--round", "1"], ["distribute", "--round", "1"]):
        assert fedloom("step", words[0], tiny_job, *words[1:]).exit_code == 0
    train = ("step", "train", tiny_job, "--round", 1, "--shard")
    assert fedloom(*train, 99).exit_code == 2
    assert json.loads(fedloom(*train, 0, "--lost", "evicted").stdout) == {"lost": "evicted"}
    assert fedloom(*train, 1).exit_code == fedloom(*train, 2).exit_code == 0
    assert "clients" in json.loads(fedloom(*train, 1, "--lost", "too late").stdout)
    assert json.loads(fedloom(*train, 0).stdout) == {"lost": "evicted"}
    assert fedloom(*train, 99, "--lost", "no such shard").exit_code == 2
    outputs = json.loads(fedloom("step", "aggregate", tiny_job, "--round", 1).stdout)
    assert outputs["participants"] == 4
    assert fedloom("step", "select", tiny_job, "--round", 1, "--lost", "x").exit_code == 2


@pytest.mark.parametrize("kind", ["dangling link", "folder"])
def test_a_spec_that_is_no_file_is_not_overlooked(fedloom: Fedloom, tiny_job: Path, kind: str) -> None:
    place = tiny_job / "selector.yaml"
    if kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(tiny_job / "nowhere.yaml")
    done = fedloom("validate", tiny_job)
    assert done.exit_code == 1
    assert "selector.yaml" in done.stdout


def test_dropouts_are_told_with_their_commonest_reasons(fedloom: Fedloom, tiny_job: Path) -> None:
    for client in ("c0", "c3"):
        (tiny_job / "data" / f"{client}.csv").write_text("a,b\n1,2\n")
    done = fedloom("simulate", tiny_job)
    assert done.exit_code == 0
    assert "round 1: lost c0 and 1 more: there is no column 'label'" in done.stderr


def test_a_run_that_ended_badly_says_how_to_start_another(fedloom: Fedloom, tmp_path: Path) -> None:
    done = fedloom("simulate", write_job(tmp_path / "job", metrics={"auc": 0.9999}))
    assert "--name" in done.stdout


def test_many_unknown_keys_are_answered_soon(fedloom: Fedloom, tiny_job: Path) -> None:
    with (tiny_job / "job.yaml").open("a") as file:
        file.writelines(f"unknown_key_{i}: 1\n" for i in range(3000))
    done = fedloom("validate", tiny_job)
    assert done.exit_code == 1
    assert done.stdout.count("unknown key") == 3000
