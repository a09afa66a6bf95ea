"""The Dockerfile and the CI example keep what they promise."""

import re
from pathlib import Path

import yaml
from click.testing import CliRunner

from fedloom import __version__
from fedloom.cli import main

ROOT = Path(__file__).parent.parent
LINES = [
    line.strip()
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def test_every_base_is_pinned_by_a_digest_that_must_be_given() -> None:
    bases = [line for line in LINES if line.startswith("FROM")]
    stages = {line.split()[3] for line in bases if " AS " in line}
    assert {line.split()[1] for line in bases} - stages == {"python:${PYTHON_TAG}@${PYTHON_DIGEST}"}
    assert "ARG PYTHON_DIGEST" in LINES  # without a default
    assert "syntax=" not in (ROOT / "Dockerfile").read_text()  # a front end is an image too, and not pinned


def test_the_last_stage_has_no_tools_and_no_root() -> None:
    last = LINES[max(i for i, line in enumerate(LINES) if line.startswith("FROM")) :]
    assert not [line for line in last if line.startswith("RUN")]
    assert [line for line in last if line.startswith("USER")] == ["USER 10001:10001"]
    assert last[-1] == 'ENTRYPOINT ["fedloom"]'


def test_the_image_is_built_from_the_package_alone() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = {word for line in LINES if line.startswith("COPY") and "--from" not in line for word in line.split()[1:-1]}
    assert copied == {line[1:] for line in ignored if line.startswith("!")}


def test_torch_is_that_of_the_project() -> None:
    (range_,) = re.findall(r'"(torch[^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert any(f'pip install "{range_}"' in line for line in LINES)


def test_pods_run_as_the_user_of_the_image() -> None:
    from fedloom.deploy.argo.pods import USER

    assert f"USER {USER}:{USER}" in LINES


def test_the_ci_example_calls_commands_that_there_are() -> None:
    text = (ROOT / "docs" / "ci" / "github-actions.yml").read_text()
    steps = yaml.safe_load(text)["jobs"]["manifests"]["steps"]
    commands = [step["run"].split() for step in steps if step.get("run", "").startswith("fedloom")]
    assert [command[1] for command in commands] == ["validate", "render", "lint", "render"]
    for command in commands:
        group = command[1:3] if command[2] == "argo" else command[1:2]
        shown = CliRunner().invoke(main, [*group, "--help"]).output
        for option in (word for word in command if word.startswith("-")):
            assert re.search(rf"{option}\b", shown), option
    assert f"fedloom=={__version__}" in text
