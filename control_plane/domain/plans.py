"""The table of contents of the whole system: each verb with its steps, in order.

The API shows and dry-runs it, operations in flight stay pinned to the steps they were written
with, and a test proves that it equals what the verb files register.
"""

import datetime as dt
from typing import Literal, get_args

import msgspec

from control_plane.domain.operations import Queue

Kind = Literal[
    "provision",
    "suspend",
    "resume",
    "rotate",
    "retire_login",
    "prepare",
    "enrol",
    "reclaim",
    "migrate",
    "rollout",
    "survey",
    "backup",
    "verify_backup",
    "restore",
    "restore_beside",
    "restore_undo",
    "archive",
    "unarchive",
    "export",
    "delete",
    "undelete",
    "purge",
    "shred",
    "rekey",
    "move",
    "move_undo",
    "move_reverse",
    "move_finish",
    "limit",
    "create_server",
    "delete_server",
    "move_to_new",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Plan(msgspec.Struct, frozen=True):
    """How one verb is carried out.

    ``cancellable_until`` names the step from which on only forward is safe: once it has
    started, cancel is refused.
    """

    kind: Kind
    steps: tuple[str, ...]
    queue: Queue
    deadline: dt.timedelta
    cancellable_until: str | None


def _plan(
    kind: Kind,
    *steps: str,
    minutes: int,
    until: str | None = None,
    queue: Queue = "control",
) -> Plan:
    return Plan(kind, steps, queue, dt.timedelta(minutes=minutes), until)


# What several verbs have in common.
_CLOSE = ("withdraw_route", "revoke_logins", "terminate_sessions", "wait_poolers", "verify_closed")
_BACK_UP = ("prepare_backup", "upload_dump", "verify_object", "write_manifest", "record_backup")
_RESTORE = (
    "check_backup",
    "fetch_object",
    "create_scratch",
    "load_dump",
    "compare_content",
    "examine_scratch",
    "record_drill",
)
_DAY = 24 * 60

PLANS: dict[Kind, Plan] = {
    plan.kind: plan
    for plan in (
        _plan(
            "provision",
            "create_roles",
            "create_database",
            "apply_template",
            "verify_schema",
            "publish_route",
            "verify_login",
            "activate",
            minutes=10,
            until="activate",
        ),
        _plan(
            "suspend",
            "withdraw_route",
            "revoke_logins",
            "terminate_sessions",
            "wait_poolers",
            "verify_closed",
            "mark_suspended",
            minutes=10,
            until="withdraw_route",
        ),
        _plan(
            "resume",
            "restore_logins",
            "publish_route",
            "verify_login",
            "mark_active",
            minutes=10,
            until="restore_logins",
        ),
        _plan(
            "rotate",
            "write_next_secret",
            "set_inactive_login",
            "publish_login",
            "verify_login",
            "switch_login",
            minutes=10,
            until="write_next_secret",
        ),
        _plan(
            "limit",
            "set_login_limits",
            "publish_route",
            "set_connection_limit",
            minutes=10,
            until="set_login_limits",
        ),
        _plan(
            "retire_login",
            "withdraw_login",
            "revoke_login",
            "terminate_sessions",
            "forget_secret",
            minutes=30,
            until="withdraw_login",
        ),
        _plan(
            "prepare",
            "create_roles",
            "create_database",
            "apply_template",
            "verify_schema",
            "offer_database",
            minutes=30,
            until="offer_database",
            queue="transfer",
        ),
        _plan(
            "enrol",
            "bootstrap_server",
            "build_template",
            "activate_server",
            minutes=30,
            until="activate_server",
            queue="transfer",
        ),
        _plan(
            "reclaim",
            "withdraw_route",
            "wait_poolers",
            "drop_database",
            "drop_roles",
            "forget_database",
            minutes=24 * 60,
            queue="transfer",
        ),
        _plan(
            "create_server",
            *("create_instance", "wait_instance", "record_server", "wait_enrolled"),
            minutes=180,
            until="record_server",
        ),
        _plan(
            "delete_server",
            *("empty_server", "delete_instance", "wait_deleted", "forget_server"),
            minutes=_DAY,
            until="empty_server",
        ),
        _plan(
            "move_to_new",
            *("wait_server", "begin_move", "wait_moved"),
            minutes=8 * _DAY,
            until="begin_move",
        ),
        _plan(
            "migrate",
            "record_restore_point",
            "apply_revision",
            "verify_schema",
            "record_revision",
            minutes=30,
            until="apply_revision",
        ),
        _plan(
            "rollout",
            "build_templates",
            "migrate_canary",
            "migrate_waves",
            "catch_up",
            "verify_schemas",
            "conclude",
            minutes=30 * 24 * 60,
            queue="transfer",
        ),
        _plan("survey", "read_schemas", "conclude_survey", minutes=120, queue="transfer"),
        _plan(
            "backup",
            *_BACK_UP,
            minutes=_DAY,
            until="record_backup",
            queue="transfer",
        ),
        _plan(
            "verify_backup",
            *_RESTORE,
            "drop_scratch",
            minutes=_DAY,
            until="record_drill",
            queue="transfer",
        ),
        _plan(
            "restore",
            *_RESTORE,
            "fence_live",
            "swap_databases",
            "restore_logins",
            "publish_route",
            "verify_login",
            "conclude_restore",
            minutes=_DAY,
            until="fence_live",
            queue="transfer",
        ),
        _plan(
            "restore_beside",
            *_RESTORE,
            "adopt_roles",
            "claim_database",
            "restore_logins",
            "publish_route",
            "verify_login",
            "activate",
            minutes=_DAY,
            until="activate",
            queue="transfer",
        ),
        _plan(
            "restore_undo",
            "fence_live",
            "swap_databases",
            "restore_logins",
            "publish_route",
            "verify_login",
            minutes=60,
            until="fence_live",
        ),
        _plan(
            "archive",
            *_CLOSE,
            *_BACK_UP,
            *_RESTORE,
            "drop_scratch",
            "mark_archived",
            minutes=2 * _DAY,
            until="mark_archived",
            queue="transfer",
        ),
        _plan(
            "unarchive",
            *_RESTORE,
            "claim_database",
            "restore_logins",
            "publish_route",
            "verify_login",
            "mark_active",
            minutes=_DAY,
            until="claim_database",
            queue="transfer",
        ),
        _plan(
            "export",
            "prepare_export",
            "upload_bundle",
            "verify_bundle",
            "record_export",
            minutes=_DAY,
            until="record_export",
            queue="transfer",
        ),
        _plan("delete", *_CLOSE, "mark_deleting", minutes=10, until="withdraw_route"),
        _plan(
            "undelete",
            "restore_logins",
            "publish_route",
            "verify_login",
            "mark_undeleted",
            minutes=10,
            until="restore_logins",
        ),
        _plan(
            "purge",
            *_BACK_UP,
            "give_up_databases",
            "wait_reclaimed",
            "mark_purged",
            minutes=2 * _DAY,
            until="give_up_databases",
            queue="transfer",
        ),
        _plan(
            "shred",
            "delete_objects",
            "destroy_keys",
            "issue_certificate",
            "mark_deleted",
            minutes=_DAY,
            until="delete_objects",
            queue="transfer",
        ),
        _plan(
            "rekey",
            "rewrap_tenant_keys",
            "reseal_secrets",
            "verify_keys",
            minutes=_DAY,
            until=None,
            queue="transfer",
        ),
        _plan(
            "move",
            "preflight",
            "create_roles",
            "prepare_source",
            "close_source",
            "copy_data",
            "follow_changes",
            "wait_caught_up",
            "compare_data",
            "prepare_way_back",
            "switch_route",
            "compare_again",
            "end_copy",
            "start_way_back",
            "verify_login",
            "conclude_move",
            minutes=7 * _DAY,
            # The switch itself refuses to be cancelled once it has happened.
            until="compare_again",
            queue="transfer",
        ),
        _plan(
            "move_undo",
            "restore_source",
            "end_links",
            "give_up_target",
            "conclude_undo",
            minutes=_DAY,
        ),
        _plan(
            "move_reverse",
            "check_way_back",
            "wait_caught_up",
            "compare_data",
            "switch_route",
            "compare_again",
            "end_links",
            "verify_login",
            "give_up_target",
            "conclude_reverse",
            minutes=_DAY,
            until="compare_again",
            queue="transfer",
        ),
        _plan(
            "move_finish",
            "check_backup",
            "end_links",
            "give_up_source",
            "conclude_finish",
            minutes=_DAY,
            until="end_links",
        ),
    )
}
