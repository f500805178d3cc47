"""Rules about single settings of a tenant server: data for ``preflight``."""

from collections.abc import Callable
from typing import Literal

import msgspec

Level = Literal["ok", "advice", "problem"]

_LEAST_NAPTIME_SECONDS = 300


class SettingRule(msgspec.Struct, frozen=True):
    """A rule about one setting: what suits, why, and the value to set."""

    name: str
    level: Level
    suits: Callable[[str], bool]
    wanted: str
    value: str
    restart: bool = False
    unit: str = ""


SETTING_RULES = (
    SettingRule(
        "wal_level",
        "problem",
        lambda value: value == "logical",
        "logical, so that tenants can be moved away",
        "'logical'",
        restart=True,
    ),
    SettingRule(
        "password_encryption",
        "problem",
        lambda value: value == "scram-sha-256",
        "scram-sha-256",
        "'scram-sha-256'",
    ),
    SettingRule(
        "default_transaction_read_only",
        "problem",
        lambda value: value == "off",
        "off, because the control plane writes",
        "off",
    ),
    SettingRule(
        "recovery_init_sync_method",
        "advice",
        lambda value: value == "syncfs",
        "syncfs: with 2,000 databases a start after a crash takes 2 s instead of 80 s",
        "'syncfs'",
    ),
    SettingRule(
        "autovacuum_naptime",
        "advice",
        lambda value: int(value) >= _LEAST_NAPTIME_SECONDS,
        "at least 5min: every database is visited once in this time",
        "'10min'",
        unit=" s",
    ),
    SettingRule(
        "max_slot_wal_keep_size",
        "advice",
        lambda value: value != "-1",
        "a limit: a forgotten replication slot must not fill the disk",
        "'4GB'",
        unit=" MB",
    ),
    SettingRule(
        "log_parameter_max_length",
        "advice",
        lambda value: value == "0",
        "0: parameters are patients' data and stay out of the log",
        "0",
        unit=" bytes",
    ),
    SettingRule(
        "log_parameter_max_length_on_error",
        "advice",
        lambda value: value == "0",
        "0: parameters are patients' data and stay out of the log",
        "0",
        unit=" bytes",
    ),
    SettingRule(
        "log_statement",
        "advice",
        lambda value: value in ("none", "ddl"),
        "none or ddl: statements carry patients' data",
        "'none'",
    ),
    SettingRule(
        "fsync",
        "advice",
        lambda value: value == "on",
        "on: without it a power failure destroys every tenant",
        "on",
    ),
)
