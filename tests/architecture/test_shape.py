"""The shape of the code, measured: what a reader may rely on without reading everything."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.config import REPOSITORY
from control_plane.domain.plans import KINDS, PLANS
from control_plane.domain.tenants import TIER_LIMITS, pool_problem
from workers import (
    archive,
    backup,
    create_server,
    delete,
    delete_server,
    enrol,
    export,
    limit,
    migrate,
    move,
    move_finish,
    move_reverse,
    move_to_new,
    move_undo,
    prepare,
    provision,
    purge,
    reclaim,
    rekey,
    restore,
    restore_beside,
    restore_undo,
    resume,
    retire_login,
    rollout,
    rotate,
    shred,
    survey,
    suspend,
    unarchive,
    undelete,
    verify_backup,
)

PACKAGES = ("control_plane", "workers", "tenant_template", "deploy")
VERBS = [
    module.VERB
    for module in (
        archive,
        backup,
        create_server,
        delete,
        delete_server,
        enrol,
        export,
        limit,
        migrate,
        move,
        move_finish,
        move_reverse,
        move_to_new,
        move_undo,
        prepare,
        provision,
        purge,
        reclaim,
        rekey,
        restore,
        restore_beside,
        restore_undo,
        resume,
        retire_login,
        rollout,
        rotate,
        shred,
        survey,
        suspend,
        unarchive,
        undelete,
        verify_backup,
    )
]
LONGEST_FILE = 400
LONGEST_STEP = 30
UNHELPFUL_NAMES = {"utils", "helpers", "common", "manager", "misc"}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (REPOSITORY / package).rglob("*.py")


def test_plans_are_the_table_of_contents_of_the_verbs() -> None:
    assert {verb.plan.kind: verb.plan for verb in VERBS} == PLANS
    for verb in VERBS:
        assert tuple(step.__name__ for step in verb.steps) == verb.plan.steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_cancellable_up_to_one_of_its_own_steps(kind: str) -> None:
    plan = PLANS[kind]  # type: ignore[index]  # parametrised over the table's own keys
    assert plan.cancellable_until in (None, *plan.steps)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.plan.kind)
def test_every_step_says_what_will_be_true(verb: object) -> None:
    for step in verb.steps:  # type: ignore[attr-defined]  # a Verb
        words = (step.__doc__ or "").strip()
        assert words.endswith("."), f"{step.__name__} has no sentence"


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for path in sources()
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert long == {}


def test_steps_and_their_parts_are_short() -> None:
    long = [
        f"{path.name}:{node.name} has {length} lines"
        for path in (REPOSITORY / "workers").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_STEP
        and node.name != "register"
    ]
    assert long == []


def test_names_say_what_a_file_is_for() -> None:
    assert [str(path) for path in sources() if path.stem in UNHELPFUL_NAMES] == []


def test_steps_leave_operation_state_sleep_and_broad_catches_to_the_engine() -> None:
    verbs = [p for p in (REPOSITORY / "workers").rglob("*.py") if p.parent.name != "engine"]
    for path in verbs:
        text = path.read_text()
        assert not re.search(r"except (Base)?Exception\b|asyncio\.sleep|UPDATE operations", text), (
            path
        )


def test_no_sql_restores_a_dump_by_running_it() -> None:
    """S-09: a plain-text dump is never fed to psql."""
    offenders = [str(p) for p in sources() if re.search(r"psql[\"', ]+-f\b", p.read_text())]
    assert offenders == []


def test_a_tenants_pools_fit_its_connection_limit() -> None:
    """I-15 in the small: two poolers, both endpoints, a retiring login, and some to spare."""
    for tier, limits in TIER_LIMITS.items():
        assert pool_problem(limits) is None, tier


def test_the_secret_readers_are_few() -> None:
    """Every place that turns a secret into plain text is known."""
    readers = sorted(
        str(path.relative_to(REPOSITORY)) for path in sources() if ".reveal()" in path.read_text()
    )
    allowed = {
        "control_plane/adapters/",
        "control_plane/catalog/migrate.py",
        "control_plane/catalog/pool.py",
        "control_plane/cli/",
        "control_plane/config/",
        "control_plane/router/",
        "control_plane/services/",
        "deploy/first_start.py",
        "deploy/local/",
    }
    assert [r for r in readers if not any(r.startswith(prefix) for prefix in allowed)] == []
