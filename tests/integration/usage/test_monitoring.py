"""Alert rules and dashboard, through the real parser of PromQL, against the real ``/metrics``."""

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from control_plane.api.metrics import TOP_TENANTS
from control_plane.config import REPOSITORY
from tests.driver import Driver, fresh_slug

ALERTS = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())
DASHBOARD = json.loads((REPOSITORY / "deploy/grafana/tenantry.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DURATION = re.compile(r"[0-9]+[smhd]")
SUFFIXES = ("_total", "_bucket", "_count", "_sum")

Labels = dict[str, set[str]]


def expressions() -> Iterator[Any]:
    for rule in RULES:
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in PANELS:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=panel["title"])


async def families(api: httpx.AsyncClient) -> Labels:
    """Every metric there is, with the labels it was seen with."""
    text = (await api.get("/metrics")).text
    found: Labels = {}
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        labels = found.setdefault(family.name, set())
        for sample in family.samples:
            labels |= set(sample.labels)
    return found


def selectors(expression: Any) -> list[Any]:
    """The metrics that an expression asks for, wherever they are in it."""
    found: list[Any] = []

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        for name in ("expr", "lhs", "rhs", "vector_selector", "args", "param"):
            inner = getattr(node, name, None)
            for one in inner if isinstance(inner, list) else [inner]:
                if one is not None and not isinstance(one, (str, float)):
                    look(one)

    look(expression)
    return found


@pytest.mark.parametrize("text", list(expressions()))
async def test_every_expression_asks_for_what_there_is(api: httpx.AsyncClient, text: str) -> None:
    await api.get("/health/live")
    known = await families(api)
    asked = selectors(promql_parser.parse(text))
    assert asked, text
    for one in asked:
        names = [one.name, *(one.name.removesuffix(suffix) for suffix in SUFFIXES)]
        name = next((name for name in names if name in known), None)
        assert name is not None, f"{one.name} is no metric of ours"
        for matcher in one.matchers.matchers:
            assert not known[name] or matcher.name in known[name], f"{one.name} has no such label"


def test_the_parser_refuses_what_is_no_promql() -> None:
    with pytest.raises(ValueError, match=r".+"):
        promql_parser.parse("sum(tenantry_operations")
    found = selectors(promql_parser.parse("sum by (a) (rate(x[5m])) / y > 3"))
    assert [one.name for one in found] == ["x", "y"]


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "warn"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert DURATION.fullmatch(rule.get("for", "1m"))


def test_the_panels_lie_beside_each_other() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


async def test_the_metrics_are_bounded_and_name_no_tenant(
    driver: Driver, api: httpx.AsyncClient
) -> None:
    slug = fresh_slug("nameless")
    await driver.create(slug)
    text = await told(api, 'tenantry_step_median_seconds{step="activate",verb="provision"}')
    assert slug not in text
    tops = [line for line in text.splitlines() if line.startswith("tenantry_top_tenant_share{")]
    assert len(tops) <= TOP_TENANTS
    assert 'tenantry_server_reachable{server="pg-a"} 1.0' in text
    assert 'tenantry_poolers{state="away"} 0.0' in text


async def told(api: httpx.AsyncClient, start: str) -> str:
    """The metrics once a line begins so: they are read anew every ten seconds."""
    text = ""
    for _ in range(600):
        text = (await api.get("/metrics")).text
        if f"\n{start}" in text:
            return text
        await asyncio.sleep(0.1)
    raise AssertionError(f"{start} never came: {text}")
