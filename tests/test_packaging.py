"""The wheel has all it needs: built, installed elsewhere, used there."""

import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_works_in_a_fresh_environment(tmp_path: Path, quiet_environment: dict[str, str]) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("fedloom-*.whl")

    home = tmp_path / "fresh"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    # The dependencies are those of this environment: what is tested is fedloom's own wheel.
    (own,) = (home / "lib").glob("python*/site-packages")
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    def fedloom(*words: str) -> str:
        command = [str(home / "bin" / "fedloom"), *words]
        done = subprocess.run(command, cwd=tmp_path, env=quiet_environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run([python, "-c", "import fedloom; print(fedloom.__file__)"], cwd=tmp_path, capture_output=True)
    assert str(own) in where.stdout.decode()
    assert fedloom("--version").startswith("fedloom ")
    assert fedloom("validate", "aircraft_accel_v1") == "valid: 6 files\n"
    assert '"$schema"' in fedloom("schema", "job")
    fedloom("init", "my-job")
    assert fedloom("validate", "my-job").startswith("valid")
    assert (own / "fedloom" / "py.typed").exists()
    assert (own / "fedloom" / "tasks" / "reporting" / "templates" / "page.html.j2").exists()
    assert (own / "fedloom" / "deploy" / "grafana" / "fedloom.json").exists()
