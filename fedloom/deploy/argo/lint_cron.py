"""Rules for CronWorkflows."""

from __future__ import annotations

from fedloom.deploy.argo.expressions import ExpressionError, names, parse
from fedloom.deploy.argo.findings import Findings, items, section
from fedloom.specs.checks_time import cron_trouble
from fedloom.specs.schedule import known_timezone
from fedloom.specs.trails import Trail

_KNOWN = ("name", "namespace", "labels", "annotations", "failed", "succeeded", "lastScheduledTime")


def cron_workflow(found: Findings) -> None:
    """Launches are possible, in a known time zone, under conditions that can be read."""
    spec = section(found.document.data, "spec")
    schedules = items(spec, "schedules")
    if not schedules and "schedule" not in spec:
        found.error(("spec",), "schedules is missing", "write a list of cron expressions")
    places: list[tuple[Trail, object]] = [(("spec", "schedules", i), each) for i, each in enumerate(schedules)]
    if "schedule" in spec:
        places.append((("spec", "schedule"), spec["schedule"]))
    for trail, expression in places:
        if trouble := cron_trouble(str(expression)):
            found.error(trail, trouble)
    zone = spec.get("timezone")
    if zone is None:
        found.warning(("spec",), "timezone is missing: that of the controller's machine holds", "write timezone: UTC")
    elif not known_timezone(zone):
        found.error(("spec", "timezone"), f"{zone!r} is no time zone", "use a name such as UTC or Europe/Paris")
    policy = spec.get("concurrencyPolicy")
    if policy not in (None, "Allow", "Forbid", "Replace"):
        found.error(("spec", "concurrencyPolicy"), f"{policy!r} is none of Allow, Forbid, Replace")
    if not spec.get("startingDeadlineSeconds"):
        found.warning(("spec",), "without startingDeadlineSeconds a launch missed by the controller is lost")
    if isinstance(spec.get("when"), str):
        _when(found, spec["when"])
    stop = section(spec, "stopStrategy").get("expression")
    if stop is not None:
        _expression(found, ("spec", "stopStrategy", "expression"), stop)


def _when(found: Findings, when: str) -> None:
    trail: Trail = ("spec", "when")
    if not (when.startswith("{{=") and when.endswith("}}")):
        return  # plain substitution; what comes out is known at the launch only
    if set('"\\\n') & set(when):
        message = "has a double quote, a backslash or a line end, and Argo reads it as the inside of a JSON string"
        found.error(trail, message, "use single quotes, on one line")
        return
    _expression(found, trail, when[3:-2])


def _expression(found: Findings, trail: Trail, text: str) -> None:
    try:
        node = parse(text)
    except ExpressionError as error:
        found.error(trail, f"the expression {error}")
        return
    for name in sorted(names(node)):
        parts = name.split(".")
        if parts[0] != "cronworkflow" or len(parts) < 2 or parts[1] not in _KNOWN:
            found.error(trail, f"reads {name}; there are cronworkflow.{', .'.join(_KNOWN)}")
