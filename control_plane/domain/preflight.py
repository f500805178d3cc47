"""What a server must be to hold tenants: every finding at once, each with its remedy.

Pure: facts in, findings out. The numbers come from the measurements in performance.md §1 and §9;
the rules on security from security.md S-07, S-15, S-49 and its version gates.
"""

from control_plane.domain.preflight_administrator import administrator_checks
from control_plane.domain.preflight_facts import Check, Profile, ServerFacts, Tls, quoted
from control_plane.domain.preflight_settings import SETTING_RULES, SettingRule

OLDEST_MAJOR, NEWEST_MAJOR = 15, 18
# The first minor releases whose clients and servers have the fix of CVE-2026-18408.
SECURE_MINORS = {15: 19, 16: 15, 17: 11, 18: 6}
_MOST_CLOCK_SECONDS = 30.0
# A move takes one slot and one sender on each side; a reverse move runs beside it.
_LEAST_SLOTS, _LEAST_FREE_SLOTS, _ADVISED_SLOTS = 5, 2, 20
# For the control plane itself, and for tenants when one in ten is busy with two connections.
_OWN_CONNECTIONS, _TENANTS_PER_CONNECTION = 50, 5
_MOST_DATABASES = 1000
_USEFUL_EXTENSIONS = ("amcheck", "btree_gist", "pg_stat_statements", "pg_trgm")
_STABLE_LOCALES = frozenset({"C", "POSIX", "C.UTF-8", "C.UTF8", "C.utf8"})


# Every setting that ``assess`` looks at.
SETTINGS: tuple[str, ...] = (
    *(rule.name for rule in SETTING_RULES),
    "max_replication_slots",
    "max_wal_senders",
    "max_connections",
    "shared_preload_libraries",
    "data_checksums",
    "ssl",
)


def assess(facts: ServerFacts, profile: Profile) -> list[Check]:
    """Every check, in the order in which an operator would go through them."""
    return [
        _version(facts),
        _recovery(facts),
        *administrator_checks(facts),
        _tls(facts, profile.tls),
        _clock(facts),
        _encoding(facts),
        _collation(facts),
        *(_setting(facts, rule) for rule in SETTING_RULES),
        _room(facts, "max_replication_slots", facts.slots_used),
        _room(facts, "max_wal_senders", facts.senders_used),
        _connections(facts, profile.capacity),
        _capacity(profile.capacity),
        _preloaded(facts),
        _checksums(facts),
        _extensions(facts),
        _neighbours(facts),
    ]


def _version(facts: ServerFacts) -> Check:
    wanted = f"Postgres {OLDEST_MAJOR} to {NEWEST_MAJOR}"
    if not OLDEST_MAJOR <= facts.major <= NEWEST_MAJOR:
        remedy = f"enrol a server of {wanted}; other versions are not tested"
        return Check("version", "problem", facts.version, wanted, remedy)
    floor = SECURE_MINORS[facts.major]
    if facts.version_num % 10_000 < floor:
        release = f"{facts.major}.{floor}"
        remedy = f"install {release} or a newer minor release; older ones have CVE-2026-18408"
        return Check("version", "advice", facts.version, f"{release} or newer", remedy)
    return Check("version", "ok", facts.version, wanted)


def _recovery(facts: ServerFacts) -> Check:
    if facts.in_recovery:
        remedy = "give the address of the primary, or promote this server: SELECT pg_promote()"
        return Check("recovery", "problem", "a standby in recovery", "a primary", remedy)
    return Check("recovery", "ok", "a primary", "a primary")


def _tls(facts: ServerFacts, tls: Tls) -> Check:
    wanted = "TLS with a verified certificate (verify-full)"
    has = facts.settings.get("ssl", "unknown")
    if tls == "disable":
        first = "" if has == "on" else "switch ssl on, then "
        remedy = f"{first}enrol with tls=verify-full and the CA of the server's certificate"
        return Check("tls", "advice", f"tls=disable (ssl = {has})", wanted, remedy)
    if not facts.encrypted:
        remedy = "ALTER SYSTEM SET ssl = on with ssl_cert_file and ssl_key_file; then reload"
        return Check("tls", "problem", f"not encrypted (ssl = {has})", wanted, remedy)
    if tls == "require":
        remedy = "enrol with the CA of the server's certificate, so that nobody can stand between"
        return Check("tls", "advice", "encrypted, certificate not verified", wanted, remedy)
    return Check("tls", "ok", "encrypted and verified", wanted)


def _clock(facts: ServerFacts) -> Check:
    found = f"{facts.clock_ahead_seconds:+.1f} s from this machine"
    wanted = f"at most {_MOST_CLOCK_SECONDS:.0f} s apart"
    if abs(facts.clock_ahead_seconds) > _MOST_CLOCK_SECONDS:
        remedy = "run a time service (NTP) on the server and on this machine"
        return Check("clock", "problem", found, wanted, remedy)
    return Check("clock", "ok", found, wanted)


def _encoding(facts: ServerFacts) -> Check:
    if facts.encoding != "UTF8":
        remedy = "make a new cluster: initdb --encoding UTF8 --locale C.UTF-8"
        return Check("encoding", "problem", facts.encoding, "UTF8", remedy)
    return Check("encoding", "ok", facts.encoding, "UTF8")


def _collation(facts: ServerFacts) -> Check:
    wanted = "the collation versions the databases were made with"
    if facts.stale_collations:
        found = "; ".join(f"{name}: {said}" for name, said in facts.stale_collations.items())
        remedy = " ".join(_refresh(name) for name in facts.stale_collations)
        return Check("collation", "problem", found, wanted, f"in each database: {remedy}")
    found = f"{facts.locale} of {facts.locale_provider}"
    if facts.locale_provider == "libc" and facts.locale not in _STABLE_LOCALES:
        remedy = "prefer a cluster made by: initdb --locale C.UTF-8, or one with an ICU locale"
        wanted = "a locale that an upgrade of the system's libc does not change"
        return Check("collation", "advice", found, wanted, remedy)
    return Check("collation", "ok", found, wanted)


def _setting(facts: ServerFacts, rule: SettingRule) -> Check:
    value = facts.settings.get(rule.name)
    if value is None:
        return _hidden(facts, rule.name, rule.wanted)
    found = value if value == "-1" else f"{value}{rule.unit}"
    if rule.suits(value):
        return Check(rule.name, "ok", found, rule.wanted)
    remedy = _alter(rule.name, rule.value, restart=rule.restart)
    return Check(rule.name, rule.level, found, rule.wanted, remedy)


def _room(facts: ServerFacts, name: str, used: int) -> Check:
    wanted = f"at least {_LEAST_SLOTS}, {_LEAST_FREE_SLOTS} of them free, so that tenants can move"
    value = facts.settings.get(name)
    if value is None:
        return _hidden(facts, name, wanted)
    found = f"{value}, {used} in use"
    if int(value) >= max(_LEAST_SLOTS, used + _LEAST_FREE_SLOTS):
        return Check(name, "ok", found, wanted)
    advised = max(_ADVISED_SLOTS, used + _LEAST_SLOTS)
    return Check(name, "problem", found, wanted, _alter(name, str(advised), restart=True))


def _connections(facts: ServerFacts, capacity: int) -> Check:
    least = _OWN_CONNECTIONS + capacity // _TENANTS_PER_CONNECTION
    wanted = f"at least {least} for {capacity} tenants"
    value = facts.settings.get("max_connections")
    if value is None:
        return _hidden(facts, "max_connections", wanted)
    if int(value) >= least:
        return Check("max_connections", "ok", value, wanted)
    remedy = f"{_alter('max_connections', str(least), restart=True)}; or enrol a smaller capacity"
    return Check("max_connections", "problem", value, wanted, remedy)


def _capacity(capacity: int) -> Check:
    wanted = f"at most {_MOST_DATABASES} tenants a server"
    if capacity > _MOST_DATABASES:
        remedy = "enrol more servers instead: files, checkpoints and crash recovery grow with each"
        return Check("capacity", "advice", str(capacity), wanted, remedy)
    return Check("capacity", "ok", str(capacity), wanted)


def _preloaded(facts: ServerFacts) -> Check:
    name, wanted = "shared_preload_libraries", "pg_stat_statements, to find noisy tenants"
    value = facts.settings.get(name)
    if value is None:
        return _hidden(facts, name, wanted)
    libraries = [part.strip().strip('"') for part in value.split(",") if part.strip()]
    if "pg_stat_statements" in libraries:
        return Check(name, "ok", value, wanted)
    # A list setting: one quoted string with commas would be a single library of that name.
    advised = ", ".join(f"'{library}'" for library in (*libraries, "pg_stat_statements"))
    return Check(name, "advice", value or "none", wanted, _alter(name, advised, restart=True))


def _checksums(facts: ServerFacts) -> Check:
    name, wanted = "data_checksums", "on: a damaged page is noticed before it is backed up"
    value = facts.settings.get(name)
    if value is None:
        return _hidden(facts, name, wanted)
    if value == "on":
        return Check(name, "ok", value, wanted)
    remedy = "stop the server and run: pg_checksums --enable"
    return Check(name, "advice", value, wanted, remedy)


def _extensions(facts: ServerFacts) -> Check:
    wanted = ", ".join(_USEFUL_EXTENSIONS)
    missing = [name for name in _USEFUL_EXTENSIONS if name not in facts.extensions]
    if missing:
        remedy = "install the contrib package of this Postgres version"
        return Check("extensions", "advice", f"without {', '.join(missing)}", wanted, remedy)
    return Check("extensions", "ok", f"{len(facts.extensions)} available", wanted)


def _neighbours(facts: ServerFacts) -> Check:
    wanted = "no databases of others"
    if facts.other_databases:
        remedy = "move other applications away: their load, slots and administrators touch tenants"
        found = f"{facts.other_databases} that are not ours"
        return Check("other_databases", "advice", found, wanted, remedy)
    return Check("other_databases", "ok", "none", wanted)


def _hidden(facts: ServerFacts, name: str, wanted: str) -> Check:
    remedy = f"as a superuser: GRANT pg_read_all_settings TO {quoted(facts.user)}"
    return Check(name, "advice", f"not shown to {facts.user}", wanted, remedy)


def _alter(name: str, value: str, *, restart: bool) -> str:
    then = "restart the server" if restart else "SELECT pg_reload_conf()"
    return f"ALTER SYSTEM SET {name} = {value}; then {then}"


def _refresh(database: str) -> str:
    name = quoted(database)
    return f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION;"
