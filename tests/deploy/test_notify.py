"""Messages: what they say, where they go, and that no secret of the way shows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedloom.deploy.notify import Message, addressed, completion_facts, failure_facts, messages, send
from fedloom.flows.compile import compile_plan
from fedloom.flows.inline import simulate
from fedloom.flows.runs import open_run
from fedloom.specs.bundle import EXAMPLES, load_job
from fedloom.tasks.errors import ConfigurationError, RunError
from tests.deploy.conftest import SECRET


def message(channel: str = "webhook") -> Message:
    return Message(channel, "fl-x: run ended", "all is well", "info", ())


def test_what_the_schedule_says_is_what_is_told() -> None:
    bundle = load_job(EXAMPLES / "aircraft_accel_v1")
    (told,) = messages(bundle, "failure", {"failure_reason": "disk {job_id} full"})
    assert told.body == "fl-aircraft-accel-v1 failed: disk {job_id} full"  # a value is not read again
    assert (told.channel, told.severity, told.recipients) == ("email", "critical", ("ml@example.org",))
    (ended,) = messages(bundle, "completion", {})
    assert ended.body == "fl-aircraft-accel-v1 ended after {num_rounds} rounds."
    assert messages(load_job(EXAMPLES / "predictive_maintenance"), "failure", {}) == []


def test_a_message_is_taken(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    url, taken = webhook
    said: list[str] = []
    send([message()], {"FEDLOOM_NOTIFY_WEBHOOK": url}, said.append)
    assert taken[0]["title"] == "fl-x: run ended"
    assert taken[0]["message"] == "all is well"
    assert said == ["told by webhook: fl-x: run ended"]


def test_a_message_is_text_also_where_it_is_shown_as_html(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    told = replace(message(), body="loss < 1 <img src=x>")
    send([told], {"FEDLOOM_NOTIFY_WEBHOOK": f"{webhook[0]}?format=html"}, print)
    assert "<img" not in webhook[1][0]["message"]
    assert "&lt;img" in webhook[1][0]["message"]


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("mailto://host.example", ["ml@example.org", "ops@example.org"]),
        ("mailto://host.example/", ["ml@example.org", "ops@example.org"]),
        ("mailto://host.example?to=own@example.org", ["own@example.org"]),
        ("mailto://host.example?TO=own@example.org", ["own@example.org"]),
        ("mailto://host.example/own@example.org", ["own@example.org"]),
    ],
)
def test_recipients_are_those_of_the_url_before_those_of_the_spec(url: str, reached: list[str]) -> None:
    from apprise import Apprise

    told = Message("email", "fl-x: run ended", "all is well", "info", ("ml@example.org", "ops@example.org"))
    url += f"{'&' if '?' in url else '?'}from=fedloom@example.org"
    service = Apprise()
    assert service.add(addressed(told, url))
    assert [address for _, address in vars(service[0])["targets"]] == reached


@pytest.mark.parametrize(("url", "trouble"), [("", "is not set"), (f"nonsense://{SECRET}", "is no Apprise URL")])
def test_a_channel_that_leads_nowhere_is_named_before_anything_is_sent(
    webhook: tuple[str, list[dict[str, Any]]], url: str, trouble: str, capfd: pytest.CaptureFixture[str]
) -> None:
    environ = {"FEDLOOM_NOTIFY_WEBHOOK": webhook[0], "FEDLOOM_NOTIFY_SLACK": url}
    with pytest.raises(ConfigurationError, match=f"FEDLOOM_NOTIFY_SLACK {trouble}") as caught:
        send([message(), message("slack")], environ, print)
    assert webhook[1] == []
    assert SECRET not in str(caught.value) + "".join(capfd.readouterr())


def test_a_message_that_is_not_taken_is_an_error(
    webhook: tuple[str, list[dict[str, Any]]], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError, match="the message was not taken by webhook") as caught:
        send([message()], {"FEDLOOM_NOTIFY_WEBHOOK": f"{webhook[0]}/refused"}, print)
    assert SECRET not in str(caught.value) + "".join(capfd.readouterr())


def test_the_facts_of_a_run(tiny_job: Path, tmp_path: Path) -> None:
    bundle = load_job(tiny_job)
    plan = compile_plan(bundle, rounds=1)
    run = open_run(plan, bundle, str(tmp_path / "store"))
    with pytest.raises(ConfigurationError, match="has not ended"):
        completion_facts(run)
    simulate(plan, run)
    facts = completion_facts(run)
    assert (facts["num_rounds"], facts["run_id"]) == ("1", run.run_id)
    assert facts["metrics_summary"].startswith("auc 0.")


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ('[{"displayName": "gate", "phase": "Failed", "message": "exit 2"}]', "gate: exit 2"),
        ('[{"displayName": "a", "phase": "Error"}, {"displayName": "b", "phase": "Failed"}]', "a: Error; b: Failed"),
        (r'"[{\"displayName\": \"gate\", \"phase\": \"Failed\", \"message\": \"exit 2\"}]"', "gate: exit 2"),
        ('"null"', "it was stopped, or ran out of time"),
        ("out of memory", "out of memory"),
        ("", "it was stopped, or ran out of time"),
        ("null", "it was stopped, or ran out of time"),
        ("[]", "it was stopped, or ran out of time"),
        ("[1]", "[1]"),
    ],
)
def test_why_it_failed(failures: str, reason: str) -> None:
    assert failure_facts(failures) == {"failure_reason": reason}
