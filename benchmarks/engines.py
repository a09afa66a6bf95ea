"""What the engines add to training and evaluation, on the main example.

Run it with: python benchmarks/engines.py
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

from fedloom.flows.compile import compile_plan
from fedloom.flows.data import prepare_data
from fedloom.flows.inline import simulate
from fedloom.flows.prefect_server import prefect_api
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import load_job, resolve_job

JOB = "aircraft_accel_v1"


def main() -> None:
    """Run the example on both engines and print where the time goes."""
    bundle = load_job(resolve_job(JOB))
    plan = compile_plan(bundle)
    prepare_data(bundle, print)
    with tempfile.TemporaryDirectory() as folder:
        simulate(plan, open_run(plan, bundle, f"{folder}/warm-up"))  # imports, and data read once

        run = open_run(plan, bundle, f"{folder}/inline")
        started = time.perf_counter()
        simulate(plan, run)
        inline = time.perf_counter() - started
        steps = Counter[str]()
        for path in (Path(folder) / "inline" / "runs").rglob("*.json"):
            result = run.store.read_json(str(path.relative_to(Path(folder) / "inline")))
            if "seconds" in result:
                steps[result["step"]] += result["seconds"]

        started = time.perf_counter()
        with prefect_api(Path(folder) / "prefect"):
            from fedloom.flows.prefect_flow import federated_job

            ready = time.perf_counter()
            federated_job(job=JOB, store=f"{folder}/prefect-run")
            ended = time.perf_counter()
        stopped = time.perf_counter()

    work = steps["train"] + steps["evaluate"]
    print(f"{JOB}, {plan.loop.rounds} rounds")
    print(f"in process                {inline:6.2f} s")
    for name, seconds in steps.most_common():
        print(f"  step {name:<12}       {seconds:6.2f} s  {100 * seconds / inline:5.1f} %")
    print(f"  outside train/evaluate  {inline - work:6.2f} s  {100 * (inline - work) / inline:5.1f} %")
    print(f"on Prefect                {ended - ready:6.2f} s  ({(ended - ready) / inline:.2f} times as long)")
    print(f"  added a round           {1000 * (ended - ready - inline) / plan.loop.rounds:6.0f} ms")
    print(f"  private server, start   {ready - started:6.2f} s")
    print(f"  private server, stop    {stopped - ended:6.2f} s")


if __name__ == "__main__":
    main()
