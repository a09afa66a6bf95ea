"""Telling people how a run ended, as its schedule says: by e-mail, chat, pager or webhook.

Where a channel leads is the cluster's secret, an Apprise URL in an environment variable such as
FEDLOOM_NOTIFY_SLACK; it is shown nowhere.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fedloom.specs.bundle import JobBundle
from fedloom.tasks.errors import ConfigurationError, RunError
from fedloom.tasks.report import last_round, summarise
from fedloom.tasks.step import Run

Event = Literal["completion", "failure"]
EVENTS: tuple[Event, ...] = get_args(Event)
_HAS_RECIPIENTS = re.compile(r"[?&]to=|^mailtos?://[^/?]+/[^?]", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_TEMPLATES: Mapping[Event, str] = {
    "completion": "{job_id} ended after {num_rounds} rounds. Gate: {decision} ({stop_reason}). {metrics_summary}",
    "failure": "{job_id} failed: {failure_reason}",
}


@dataclass(frozen=True)
class Message:
    """One message to one channel.

    Attributes:
        channel: email, slack, pagerduty or webhook.
        title: What happened, in a few words.
        body: The message.
        severity: info, warning or critical.
        recipients: Who gets it, for e-mail.
    """

    channel: str
    title: str
    body: str
    severity: str
    recipients: tuple[str, ...]


def messages(bundle: JobBundle, event: Event, facts: Mapping[str, str]) -> list[Message]:
    """What people are to be told of an event.

    Args:
        bundle: The specs.
        event: What happened.
        facts: Replace ``{name}`` in the spec's template; what is unknown stays as it is written.
    """
    told = bundle.schedule.notifications if bundle.schedule else None
    said = None if told is None else told.on_completion if event == "completion" else told.on_failure
    if said is None or not said.enabled:
        return []
    facts = {"job_id": bundle.job.job_id, **facts}
    body = _PLACEHOLDER.sub(lambda m: facts.get(m[1], m[0]), said.message_template or _TEMPLATES[event])
    severity = said.severity or ("info" if event == "completion" else "critical")
    title = f"{bundle.job.job_id}: {'run ended' if event == 'completion' else 'run failed'}"
    return [Message(channel, title, body, severity, said.recipients) for channel in said.channels]


def completion_facts(run: Run) -> dict[str, str]:
    """What can be said of a run that has ended.

    Raises:
        ConfigurationError: when it has not.
    """
    summary = summarise(last_round(run))
    gate = summary["gate"]
    return {
        "run_id": run.run_id,
        "model_version": run.recipe.model_version,
        "num_rounds": str(summary["rounds"]),
        "decision": gate["decision"],
        "stop_reason": gate["stop_reason"],
        "metrics_summary": ", ".join(f"{name} {value:.4f}" for name, value in summary["metrics"].items()),
        "model_digest": summary["model_digest"],
    }


def failure_facts(failures: str) -> dict[str, str]:
    """What can be said of a run that failed; it may have failed before there was a plan.

    Args:
        failures: Text, or the list of nodes that Argo gives to exit handlers, which is JSON within a JSON string.
    """
    try:
        nodes = json.loads(failures)
        nodes = json.loads(nodes) if isinstance(nodes, str) else nodes
        parts = [f"{node['displayName']}: {node.get('message') or node['phase']}" for node in nodes or ()]
    except (ValueError, TypeError, KeyError):
        parts = [failures] if failures not in ("", "null") else []
    return {"failure_reason": "; ".join(parts)[:2000] or "it was stopped, or ran out of time"}


def send(told: Sequence[Message], environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Send messages.

    Args:
        told: The messages.
        environ: Where the channels lead.
        say: Told of every message that was sent.

    Raises:
        ConfigurationError: when a channel leads nowhere; then nothing has been sent.
        RunError: when a message was not taken; the others have been sent.
    """
    from apprise import Apprise, NotifyFormat

    logging.getLogger("apprise").disabled = True  # it would show URLs, and with them secrets
    ready: list[tuple[Message, Apprise]] = []
    for message in told:
        variable = f"FEDLOOM_NOTIFY_{message.channel.upper()}"
        service = Apprise()
        if not environ.get(variable) or not service.add(addressed(message, environ[variable])):
            trouble = "is no Apprise URL" if environ.get(variable) else "is not set"
            raise ConfigurationError(f"nobody can be told by {message.channel}: the variable {variable} {trouble}")
        ready.append((message, service))
    refused = []
    for message, service in ready:
        kind = {"info": "info", "warning": "warning", "critical": "failure"}[message.severity]
        # As text, or the HTML part of a mail would carry out what a message holds.
        taken = service.notify(title=message.title, body=message.body, notify_type=kind, body_format=NotifyFormat.TEXT)
        if taken:
            say(f"told by {message.channel}: {message.title}")
        else:
            refused.append(message.channel)
    if refused:
        raise RunError(f"the message was not taken by {', '.join(refused)}")


def addressed(message: Message, url: str) -> str:
    """The URL, with the recipients of an e-mail where it names none."""
    if message.channel != "email" or not message.recipients or _HAS_RECIPIENTS.search(url):
        return url
    from urllib.parse import quote

    return f"{url}{'&' if '?' in url else '?'}to={quote(','.join(message.recipients))}"
