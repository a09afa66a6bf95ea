"""What the quick commands cost, as ratios to importing the two libraries that they cannot do without.

Run it with: python benchmarks/startup.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

TIMES = 15
BASE = "python -c 'import pydantic, yaml'"
COMMANDS = {
    BASE: [sys.executable, "-c", "import pydantic, yaml"],
    "python -c 'from pydantic import BaseModel; import yaml'": [
        sys.executable,
        "-c",
        "from pydantic import BaseModel; import yaml",
    ],
    "fedloom --help": [sys.executable, "-m", "fedloom", "--help"],
    "fedloom validate sensor_drift_autoencoder (3 files)": [
        *(sys.executable, "-m", "fedloom", "validate", "sensor_drift_autoencoder")
    ],
    "fedloom validate aircraft_accel_v1 (6 files)": [
        *(sys.executable, "-m", "fedloom", "validate", "aircraft_accel_v1")
    ],
    "fedloom plan aircraft_accel_v1": [sys.executable, "-m", "fedloom", "plan", "aircraft_accel_v1"],
}


def seconds(command: list[str]) -> float:
    """Wall-clock time of one call."""
    # An installed package has its bytecode; in a checkout it must be allowed to keep it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started


def main() -> None:
    """Time the commands in turn, so that the machine's moods hit all alike, and print medians."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for command in COMMANDS.values():
        seconds(command)
    for _ in range(TIMES):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    base = statistics.median(taken[BASE])
    print(f"{'median of ' + str(TIMES):<58}  ms   ratio")
    for name, values in taken.items():
        median = statistics.median(values)
        print(f"{name:<56} {1000 * median:5.0f}  {median / base:5.2f}")


if __name__ == "__main__":
    main()
