import msgspec
import pytest

from control_plane.domain.administrators import EVERYTHING, Abilities
from control_plane.domain.preflight import SETTINGS, assess
from control_plane.domain.preflight_facts import Check, Profile, ServerFacts

GOOD = ServerFacts(
    version_num=150_020,
    system_identifier=7_300_000_000_000_000_001,
    user="admin",
    in_recovery=False,
    encrypted=True,
    settings={
        "wal_level": "logical",
        "password_encryption": "scram-sha-256",
        "default_transaction_read_only": "off",
        "recovery_init_sync_method": "syncfs",
        "autovacuum_naptime": "600",
        "max_slot_wal_keep_size": "4096",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_statement": "none",
        "fsync": "on",
        "max_replication_slots": "20",
        "max_wal_senders": "20",
        "max_connections": "400",
        "shared_preload_libraries": "auto_explain, pg_stat_statements",
        "data_checksums": "on",
        "ssl": "on",
    },
    slots_used=2,
    senders_used=1,
    encoding="UTF8",
    locale_provider="libc",
    locale="C.UTF-8",
    extensions=frozenset({"amcheck", "btree_gist", "pg_stat_statements", "pg_trgm", "plpgsql"}),
    other_databases=0,
    clock_ahead_seconds=0.4,
)
WANTED = Profile(tls="verify-full", capacity=500)
# One that a server's owner gave everything but that attribute.
LIMITED = msgspec.structs.replace(EVERYTHING, superuser=False)


def found(facts: ServerFacts, profile: Profile = WANTED) -> dict[str, Check]:
    """What is not ok, by name."""
    return {check.name: check for check in assess(facts, profile) if check.level != "ok"}


def changed(**facts: object) -> ServerFacts:
    return msgspec.structs.replace(GOOD, **facts)


def setting(name: str, value: str) -> ServerFacts:
    return changed(settings=GOOD.settings | {name: value})


def test_a_good_server_has_nothing_against_it_but_that_its_administrator_is_a_superuser() -> None:
    assert set(found(GOOD)) == {"provisioner_root_equivalent"}
    assert found(GOOD)["provisioner_root_equivalent"].level == "advice"


def test_every_setting_that_is_asked_for_is_looked_at() -> None:
    assert set(SETTINGS) == set(GOOD.settings)


def test_names_are_unique_and_whatever_is_not_ok_has_a_remedy() -> None:
    for facts in (GOOD, changed(version_num=140_010, in_recovery=True, settings={}, encoding="x")):
        checks = assess(facts, WANTED)
        assert len({check.name for check in checks}) == len(checks)
        assert [c.name for c in checks if (c.remedy is None) != (c.level == "ok")] == []


@pytest.mark.parametrize(
    ("facts", "name", "level", "remedy"),
    [
        (changed(version_num=140_018), "version", "problem", "Postgres 15 to 18"),
        (changed(version_num=190_001), "version", "problem", "Postgres 15 to 18"),
        (changed(version_num=150_018), "version", "advice", "15.19 or a newer"),
        (changed(version_num=160_014), "version", "advice", "16.15 or a newer"),
        (changed(version_num=170_010), "version", "advice", "17.11 or a newer"),
        (changed(version_num=180_005), "version", "advice", "18.6 or a newer"),
        (changed(in_recovery=True), "recovery", "problem", "pg_promote"),
        (changed(may=LIMITED), "administrator", "problem", 'ALTER ROLE "admin" SUPERUSER'),
        (changed(encrypted=False), "tls", "problem", "ALTER SYSTEM SET ssl = on"),
        (changed(clock_ahead_seconds=30.5), "clock", "problem", "NTP"),
        (changed(clock_ahead_seconds=-31.0), "clock", "problem", "NTP"),
        (changed(encoding="SQL_ASCII"), "encoding", "problem", "initdb --encoding UTF8"),
        (
            changed(stale_collations={'cli"nic': "made with 2.31, runs on 2.36"}),
            "collation",
            "problem",
            'ALTER DATABASE "cli""nic" REFRESH COLLATION VERSION',
        ),
        (changed(locale="en_US.UTF-8"), "collation", "advice", "--locale C.UTF-8"),
        (setting("wal_level", "replica"), "wal_level", "problem", "SET wal_level = 'logical'; "),
        (setting("password_encryption", "md5"), "password_encryption", "problem", "scram-sha-256"),
        (
            setting("default_transaction_read_only", "on"),
            "default_transaction_read_only",
            "problem",
            "= off",
        ),
        (setting("max_replication_slots", "4"), "max_replication_slots", "problem", "= 20; then"),
        (setting("max_wal_senders", "2"), "max_wal_senders", "problem", "= 20; then restart"),
        (setting("max_connections", "149"), "max_connections", "problem", "= 150; then restart"),
        (
            setting("recovery_init_sync_method", "fsync"),
            "recovery_init_sync_method",
            "advice",
            "= 'syncfs'; then SELECT pg_reload_conf()",
        ),
        (setting("autovacuum_naptime", "299"), "autovacuum_naptime", "advice", "= '10min'"),
        (setting("max_slot_wal_keep_size", "-1"), "max_slot_wal_keep_size", "advice", "'4GB'"),
        (setting("log_parameter_max_length", "-1"), "log_parameter_max_length", "advice", "= 0"),
        (
            setting("log_parameter_max_length_on_error", "64"),
            "log_parameter_max_length_on_error",
            "advice",
            "= 0",
        ),
        (setting("log_statement", "all"), "log_statement", "advice", "= 'none'"),
        (setting("fsync", "off"), "fsync", "advice", "= on"),
        (setting("data_checksums", "off"), "data_checksums", "advice", "pg_checksums --enable"),
        (
            setting("shared_preload_libraries", 'auto_explain, "pg_stat_kcache"'),
            "shared_preload_libraries",
            "advice",
            "= 'auto_explain', 'pg_stat_kcache', 'pg_stat_statements'; then restart",
        ),
        (changed(extensions=frozenset({"pg_trgm"})), "extensions", "advice", "contrib"),
        (changed(other_databases=3), "other_databases", "advice", "other applications"),
    ],
)
def test_one_fault_gives_one_finding_with_its_remedy(
    facts: ServerFacts, name: str, level: str, remedy: str
) -> None:
    assert set(found(facts)) - {"provisioner_root_equivalent"} == {name}
    check = found(facts)[name]
    assert check.level == level
    assert check.remedy is not None
    assert remedy in check.remedy


def test_every_problem_is_found_at_once() -> None:
    facts = changed(
        version_num=140_001,
        in_recovery=True,
        may=LIMITED,
        encoding="LATIN1",
        clock_ahead_seconds=900.0,
        settings=GOOD.settings | {"wal_level": "minimal", "max_wal_senders": "0"},
    )
    problems = {check.name for check in assess(facts, WANTED) if check.level == "problem"}
    assert problems == {
        *("version", "recovery", "administrator", "encoding", "clock"),
        *("wal_level", "max_wal_senders"),
    }


def test_slots_that_are_used_up_are_a_problem_however_many_there_are() -> None:
    check = found(changed(slots_used=19))["max_replication_slots"]
    assert (check.level, check.found) == ("problem", "20, 19 in use")
    assert check.remedy == "ALTER SYSTEM SET max_replication_slots = 24; then restart the server"
    assert "max_replication_slots" not in found(changed(slots_used=18))


def test_connections_are_judged_by_the_capacity_asked_for() -> None:
    few = setting("max_connections", "100")
    assert "max_connections" in found(few)
    assert "max_connections" not in found(few, Profile("verify-full", 250))
    assert set(found(GOOD, Profile("verify-full", 1001))) >= {"capacity"}


@pytest.mark.parametrize(
    ("superuser", "createrole", "version_num", "flagged"),
    [
        (True, True, 180_006, True),
        (False, True, 150_020, True),
        (False, True, 160_015, False),
        (False, False, 150_020, False),
    ],
)
def test_an_administrator_who_is_worth_a_shell_is_flagged(
    *, superuser: bool, createrole: bool, version_num: int, flagged: bool
) -> None:
    may = msgspec.structs.replace(EVERYTHING, superuser=superuser, createrole=createrole)
    facts = changed(may=may, version_num=version_num)
    assert ("provisioner_root_equivalent" in found(facts)) is flagged


def limited(**lacking: object) -> ServerFacts:
    return changed(version_num=160_015, may=msgspec.structs.replace(LIMITED, **lacking))


def test_an_administrator_that_is_no_superuser_is_enough_since_16() -> None:
    assert found(limited()) == {}
    old = found(changed(may=LIMITED))["administrator"]
    assert (old.level, old.found) == ("problem", "admin is no superuser on Postgres 15")


def test_what_an_administrator_lacks_is_named() -> None:
    check = found(limited(createdb=False, createrole=False))["administrator"]
    assert (check.level, check.found) == ("problem", "admin lacks CREATEDB, CREATEROLE")
    assert 'ALTER ROLE "admin" CREATEDB CREATEROLE' in (check.remedy or "")


@pytest.mark.parametrize(
    ("facts", "name", "remedy"),
    [
        (limited(replication=False), "administrator_moves", 'ALTER ROLE "admin" REPLICATION'),
        (limited(replication=False), "administrator_moves", 'GRANT rds_replication TO "admin"'),
        (limited(subscriptions=False), "administrator_moves", "GRANT pg_create_subscription"),
        (limited(origins=False), "administrator_moves", "pg_replication_origin_advance"),
        (limited(bypassrls=False), "administrator_row_security", "BYPASSRLS"),
        (
            limited(settings=frozenset({"lc_messages"})),
            "administrator_settings",
            "SET ON PARAMETER lo_compat_privileges, temp_file_limit TO",
        ),
        (limited(restore_points=False), "administrator_restore_points", "pg_create_restore_point"),
        (limited(statistics=False), "administrator_sessions", "GRANT pg_monitor TO"),
        (limited(signals=False), "administrator_sessions", "GRANT pg_signal_backend TO"),
        (
            changed(public_databases=("postgres", "template1")),
            "public_databases",
            'REVOKE ALL ON DATABASE "postgres", "template1" FROM PUBLIC',
        ),
    ],
)
def test_whatever_else_it_lacks_is_advice_with_its_statement(
    facts: ServerFacts, name: str, remedy: str
) -> None:
    checks = found(facts)
    assert (checks[name].level, remedy in (checks[name].remedy or "")) == ("advice", True)
    assert set(checks) <= {name, "provisioner_root_equivalent"}


def test_a_role_that_streams_is_as_good_as_the_attribute() -> None:
    lent: Abilities = limited(replication=False, lends_streaming=True).may
    assert lent.streams
    assert found(changed(version_num=160_015, may=lent)) == {}


def test_roles_of_another_administrator_are_a_problem() -> None:
    check = found(changed(foreign_roles=9))["administrator_inherits"]
    assert (check.level, check.found[:7]) == ("problem", "9 roles")
    assert "administrator-sql" in (check.remedy or "")


def test_tls_advice_depends_on_the_mode() -> None:
    plain = found(changed(encrypted=False), Profile("disable", 500))["tls"]
    without = found(setting("ssl", "off"), Profile("disable", 500))["tls"]
    unverified = found(GOOD, Profile("require", 500))["tls"]
    assert (plain.level, plain.found) == ("advice", "tls=disable (ssl = on)")
    assert (plain.remedy or "").startswith("enrol with tls=verify-full")
    assert (without.remedy or "").startswith("switch ssl on, then enrol")
    assert (unverified.level, unverified.found) == ("advice", "encrypted, certificate not verified")


def test_a_setting_that_is_hidden_from_the_login_is_told_not_guessed() -> None:
    checks = {check.name: check for check in assess(changed(settings={}), WANTED)}
    for name in SETTINGS:
        if name != "ssl":
            assert checks[name].level == "advice"
            assert checks[name].remedy == 'as a superuser: GRANT pg_read_all_settings TO "admin"'
