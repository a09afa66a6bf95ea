"""What rendering Argo manifests costs, as ratios in one run, beside two other compilers to Argo.

Run it with: python benchmarks/render.py [--kfp PYTHON] [--metaflow PYTHON]

The peers need interpreters of their own: `python -m venv kfp && kfp/bin/pip install kfp`, and likewise metaflow with
boto3 and kubernetes. A peer whose interpreter is not given is left out, by name. Metaflow renders nothing before it
has uploaded the code: a local S3 server takes it, and the time includes that.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fedloom.specs.bundle import EXAMPLES

TIMES = 7
ROUNDS = 10
JOBS = 200
FEDLOOM = [sys.executable, "-m", "fedloom", "render", "argo"]

KFP = """
from kfp import compiler, dsl

def fedloom(*args):
    return dsl.ContainerSpec(image="fedloom:0.1.0", command=["fedloom"], args=["step", *args])

@dsl.container_component
def step(name: str, number: int):
    return fedloom(name, "--round", number)

@dsl.container_component
def select(number: int, shards: dsl.OutputPath(list)):
    return fedloom("select", "--round", number, "--outputs", shards)

@dsl.container_component
def train(number: int, shard: int, result: dsl.OutputPath(str)):
    return fedloom("train", "--round", number, "--shard", shard, "--outputs", result)

@dsl.container_component
def aggregate(number: int, results: list):
    return fedloom("aggregate", "--round", number, results)

@dsl.pipeline(name="rounds")
def rounds():
    last = None
    for number in range(1, %d + 1):
        selected = select(number=number)
        if last is not None:
            selected.after(last)
        distributed = step(name="distribute", number=number).after(selected)
        with dsl.ParallelFor(selected.outputs["shards"]) as shard:
            trained = train(number=number, shard=shard).after(distributed)
        # A task waits for a loop only through what it collects from it.
        aggregated = aggregate(number=number, results=dsl.Collected(trained.outputs["result"]))
        evaluated = step(name="evaluate", number=number).after(aggregated)
        last = step(name="gate", number=number).after(evaluated)

compiler.Compiler().compile(rounds, "rounds.yaml")
"""

METAFLOW_HEAD = """
from metaflow import FlowSpec, step

class RoundsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.select_1)
"""
METAFLOW_ROUND = """
    @step
    def select_{0}(self):
        self.next(self.distribute_{0})
    @step
    def distribute_{0}(self):
        self.shards = [0, 1, 2]
        self.next(self.train_{0}, foreach="shards")
    @step
    def train_{0}(self):
        self.next(self.aggregate_{0})
    @step
    def aggregate_{0}(self, inputs):
        self.next(self.evaluate_{0})
    @step
    def evaluate_{0}(self):
        self.next(self.gate_{0})
    @step
    def gate_{0}(self):
        self.next(self.{1})
"""
METAFLOW_END = """
    @step
    def end(self):
        pass

if __name__ == "__main__":
    RoundsFlow()
"""


def job(folder: Path, number: int = 0, rounds: int = ROUNDS) -> Path:
    """The example under another name."""
    shutil.copytree(EXAMPLES / "aircraft_accel_v1", folder)
    for name in ("job.yaml", "schedule.yaml", "rollout.yaml"):
        text = (folder / name).read_text()
        text = text.replace("fl-aircraft-accel-v1", f"fl-aircraft-{number}").replace(
            "num_rounds: 20", f"num_rounds: {rounds}"
        )
        (folder / name).write_text(text)
    return folder


def metaflow_flow() -> str:
    """The rounds unrolled: Metaflow's steps are methods of a class."""
    following = [f"select_{number + 1}" for number in range(1, ROUNDS)] + ["end"]
    return METAFLOW_HEAD + "".join(METAFLOW_ROUND.format(i + 1, n) for i, n in enumerate(following)) + METAFLOW_END


@contextmanager
def local_s3() -> Iterator[None]:
    """An S3 server for Metaflow, named in the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "METAFLOW_USER": "benchmark",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_DATASTORE_SYSROOT_S3": "s3://bucket/metaflow",
        "METAFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "METAFLOW_KUBERNETES_NAMESPACE": "default",
    }
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
    try:
        yield
    finally:
        server.stop()


def seconds(command: list[str], folder: Path) -> float:
    """Wall-clock time of one call."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return taken


def medians(commands: dict[str, list[str]], folder: Path, times: int = TIMES) -> dict[str, float]:
    """Time the commands in turn, so that the machine's moods hit all alike."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command, folder)
    for _ in range(times):
        for name, command in commands.items():
            taken[name].append(seconds(command, folder))
    return {name: statistics.median(values) for name, values in taken.items()}


def peers(folder: Path, kfp: str | None, metaflow: str | None) -> dict[str, list[str]]:
    """The commands of the peers that there are."""
    found = {}
    if kfp is None:
        print("left out: Kubeflow Pipelines (give --kfp)")
    else:
        (folder / "kfp_rounds.py").write_text(KFP % ROUNDS)
        found["kfp: compile the same DAG"] = [kfp, "kfp_rounds.py"]
    if metaflow is None:
        print("left out: Metaflow (give --metaflow)")
    else:
        (folder / "rounds_flow.py").write_text(metaflow_flow())
        create = [metaflow, "rounds_flow.py", "--datastore", "s3", "argo-workflows", "create", "--only-json"]
        found["metaflow: argo-workflows create --only-json"] = create
    return found


def main() -> None:
    """Measure, and print medians with their ratios."""
    options = argparse.ArgumentParser()
    options.add_argument("--kfp", help="Python with Kubeflow Pipelines.")
    options.add_argument("--metaflow", help="Python with Metaflow and boto3.")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name, local_s3() if given.metaflow else nullcontext():
        folder = Path(name)
        short, long = job(folder / "short"), job(folder / "long", rounds=1000)
        for number in range(JOBS):
            job(folder / "jobs" / str(number), number)
        base = "python -c 'import hera.workflows'"
        commands = {
            base: [sys.executable, "-c", "import hera.workflows"],
            f"fedloom: {ROUNDS} rounds": [*FEDLOOM, str(short), "--stdout"],
            "fedloom: 1,000 rounds": [*FEDLOOM, str(long), "--stdout"],
            **peers(folder, given.kfp, given.metaflow),
        }
        found = medians(commands, folder)
        many = medians({"jobs": [*FEDLOOM, str(folder / "jobs"), "--stdout"]}, folder, 3)["jobs"]
    print(f"{'median of ' + str(TIMES):<46}    ms   ratio")
    for name, median in found.items():
        print(f"{name:<46} {1000 * median:5.0f}  {median / found[base]:6.2f}")
    one = found[f"fedloom: {ROUNDS} rounds"]
    print(f"1,000 rounds against {ROUNDS}: {found['fedloom: 1,000 rounds'] / one:.2f} times")
    print(f"a job more, of {JOBS}: {1000 * (many - one) / (JOBS - 1):.0f} ms")


if __name__ == "__main__":
    main()
