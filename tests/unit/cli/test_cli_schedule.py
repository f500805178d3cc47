"""``tenantry schedule``: what is asked of the API, and what a person reads."""

import datetime as dt
from typing import Any

import pytest

from tests.unit.cli.canned_api import NOW, CannedApi, problem
from tests.unit.cli.conftest import Run

PATH = "/v1/tenants/acme/backup-schedule"
POLICY = {
    "tier": "standard",
    "cron": "0 2 * * *",
    "timezone": "Europe/Berlin",
    "jitter_minutes": 120,
    "rpo_minutes": 1830,
    "drill_days": 30,
    "keep_last": 3,
    "keep_daily": 7,
    "keep_weekly": 5,
    "keep_monthly": 12,
    "keep_yearly": 0,
    "changed_by": "olga",
    "changed_at": NOW,
}


def ago(**some: float) -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1, **some)).isoformat()


def schedule(**more: Any) -> dict[str, Any]:
    return {
        **POLICY,
        "tenant": "acme",
        "source": "tenant",
        "next_slot_at": "2099-07-05T00:00:00Z",
        "next_due_at": "2099-07-05T00:47:11Z",
        "newest_backup": {"id": "bk_1", "snapshot_at": ago(hours=3), "verified_at": None},
        "newest_drill": {
            "backup": "bk_0",
            "cause": "rotation",
            "finished_at": ago(days=2),
            "seconds": 12.5,
        },
        "rpo": {"state": "met", "covered_until": ago(hours=3), "breached_at": None},
        "stored_backups": 14,
        "prunable_backups": 0,
        "note": None,
        **more,
    }


def facts(stdout: str) -> dict[str, str]:
    """The facts by name."""
    pairs = [line.split("  ", 1) for line in stdout.splitlines()]
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) > 1}


def test_what_was_typed_is_asked_for_in_the_units_of_the_api(run: Run, canned: CannedApi) -> None:
    canned.on("PUT", PATH, schedule())

    run(
        *("schedule", "set", "acme", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin"),
        *("--jitter", "90m", "--rpo", "30h", "--drill", "14d", "--keep-last", "2"),
        *("--keep-daily", "7", "--keep-weekly", "5", "--keep-monthly", "0", "--keep-yearly", "1"),
    )

    assert canned.asked[0].query == {}
    assert canned.asked[0].body == {
        "cron": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "jitter_minutes": 90,
        "rpo_minutes": 1800,
        "drill_days": 14,
        "keep_last": 2,
        "keep_daily": 7,
        "keep_weekly": 5,
        "keep_monthly": 0,
        "keep_yearly": 1,
    }


def test_what_was_left_out_is_left_to_the_api(run: Run, canned: CannedApi) -> None:
    canned.on("PUT", PATH, schedule(prunable_backups=4))

    result = run("schedule", "set", "acme", "--cron", "0 2 * * *", "--dry-run")

    assert canned.asked[0].body == {"cron": "0 2 * * *"}
    assert canned.asked[0].query == {"dry_run": "true"}
    assert result.code == 0
    assert result.stdout.splitlines()[-1] == "nothing was changed"
    assert facts(result.stdout)["stored"] == "14 backups, 4 of them kept by no rule"


def test_without_a_cron_line_there_is_nothing_to_set(run: Run, canned: CannedApi) -> None:
    result = run("schedule", "set", "acme")

    assert (result.code, canned.asked) == (2, [])
    assert "--cron" in result.stderr


def test_a_schedule_says_where_it_comes_from_and_how_well_it_is_kept(
    run: Run, canned: CannedApi
) -> None:
    canned.on("GET", PATH, schedule())

    result = run("schedule", "show", "acme")

    found = facts(result.stdout)
    assert result.code == 0
    assert found["policy"].startswith("its own, set ")
    assert found["policy"].endswith(" by olga")
    assert found["cron"] == "0 2 * * * in Europe/Berlin"
    assert found["spread"] == "up to 2 h after a slot"
    assert found["keeps"] == "3 last, 7 daily, 5 weekly, 12 monthly"
    assert found["rpo"] == "30 h 30 min"
    # In the zone of the schedule: 00:47 UTC in summer.
    assert found["next backup"].endswith("d: 2099-07-05 02:47 CEST for the slot 02:00")
    assert found["newest backup"] == "bk_1 3 h ago, not verified"
    assert found["newest proof"] == "bk_0 2 d ago (rotation), took 12.50 s"
    assert found["health"] == "ok · everything up to 3 h ago is in a backup"
    assert "note" not in found


def test_with_utc_times_are_in_utc(run: Run, canned: CannedApi) -> None:
    canned.on("GET", PATH, schedule())

    found = facts(run("schedule", "show", "acme", "--utc").stdout)

    assert found["next backup"] == "2099-07-05 00:47 UTC for the slot 00:00"


def test_who_is_late_waits_for_a_place(run: Run, canned: CannedApi) -> None:
    canned.on("GET", PATH, schedule(next_slot_at=NOW, next_due_at="2026-01-31T08:30:00Z"))

    for options in ((), ("--utc",)):
        found = facts(run("schedule", "show", "acme", *options).stdout)
        assert found["next backup"].startswith("waits for its place since 2026-01-31 ")


def test_a_breach_is_the_health_of_the_schedule(
    run: Run, canned: CannedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    breached = {"state": "breached", "covered_until": ago(hours=40), "breached_at": NOW}
    canned.on("GET", PATH, schedule(rpo=breached))

    assert (
        facts(run("schedule", "show", "acme").stdout)["health"]
        == "breached · everything up to 1 d ago is in a backup"
    )
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31mbreached" in run("schedule", "show", "acme").stdout


def test_who_is_not_backed_up_is_told_why(run: Run, canned: CannedApi) -> None:
    nothing = {"state": "unwatched", "covered_until": None, "breached_at": None}
    canned.on(
        "GET",
        PATH,
        schedule(
            source="tier",
            next_slot_at=None,
            next_due_at=None,
            newest_backup=None,
            newest_drill=None,
            rpo=nothing,
            stored_backups=0,
            jitter_minutes=0,
            note="no backup store is configured",
        ),
    )

    found = facts(run("schedule", "show", "acme").stdout)

    assert found["policy"].startswith("that of tier standard, set ")
    assert (found["newest backup"], found["newest proof"]) == ("none", "none")
    assert found["note"] == "no backup store is configured"
    assert not {"next backup", "health", "spread"} & set(found)


def test_clear_goes_back_to_the_tier(run: Run, canned: CannedApi) -> None:
    canned.on("DELETE", PATH, schedule(source="tier"))

    first, second = run("schedule", "clear", "acme"), run("schedule", "clear", "acme", "--dry-run")

    assert first.code == second.code == 0
    assert [one.query for one in canned.asked] == [{}, {"dry_run": "true"}]
    assert "nothing was changed" not in first.stdout
    assert "nothing was changed" in second.stdout


def test_json_is_the_answer_of_the_api(run: Run, canned: CannedApi) -> None:
    wanted = schedule()
    canned.on("PUT", PATH, wanted)

    result = run("schedule", "set", "acme", "--cron", "0 2 * * *", "--dry-run", "--json")

    assert result.json == wanted


def test_the_tiers_are_a_table(run: Run, canned: CannedApi) -> None:
    other = {**POLICY, "tier": "dedicated", "rpo_minutes": 45, "timezone": "UTC"}
    canned.on("GET", "/v1/backup-policies", {"items": [POLICY, other]})

    lines = run("schedule", "tiers").stdout.splitlines()

    assert lines[0].split() == [
        *("TIER", "CRON", "TIMEZONE", "SPREAD", "RPO", "DRILL", "KEEPS", "CHANGED")
    ]
    assert "standard   0 2 * * *  Europe/Berlin  2 h     30 h 30 min  30 d" in lines[1]
    assert " 45 min " in lines[2]


def test_a_tier_is_changed(run: Run, canned: CannedApi) -> None:
    canned.on("PUT", "/v1/backup-policies/standard", POLICY)

    result = run("schedule", "set-tier", "standard", "--cron", "0 2 * * *", "--keep-daily", "7")

    assert canned.asked[0].body == {"cron": "0 2 * * *", "keep_daily": 7}
    assert facts(result.stdout)["tier"] == "standard"
    assert "nothing was changed" not in result.stdout
    dry = run("schedule", "set-tier", "standard", "--cron", "0 2 * * *", "--dry-run")
    assert canned.asked[1].query == {"dry_run": "true"}
    assert dry.stdout.splitlines()[-1] == "nothing was changed"
    assert run("schedule", "set-tier", "gold", "--cron", "0 2 * * *").code == 2


def test_a_refusal_names_the_field(run: Run, canned: CannedApi) -> None:
    refused = [{"field": "rpo_minutes", "message": "use at least 10200, or a denser cron"}]
    canned.on("PUT", PATH, problem(422, "invalid", "rpo_minutes: too small", errors=refused))

    result = run("schedule", "set", "acme", "--cron", "0 3 * * 0")

    assert result.code == 2
    assert "use at least 10200, or a denser cron" in result.stderr
