"""The Celery application: verbs, ticks and the settings that make a broker safe to lose."""

from control_plane.adapters.doorbell import celery_app
from control_plane.config import Settings
from workers import (
    archive,
    backup,
    backup_ticks,
    create_server,
    delete,
    delete_server,
    enrol,
    export,
    lifecycle_ticks,
    limit,
    migrate,
    move,
    move_finish,
    move_reverse,
    move_ticks,
    move_to_new,
    move_undo,
    prepare,
    provision,
    purge,
    reclaim,
    reconcile,
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
    upkeep,
    usage_ticks,
    verify_backup,
)
from workers.engine.pulse import register_pulse
from workers.engine.step import Verb
from workers.engine.tasks import register

VERBS: dict[str, Verb] = {
    verb.plan.kind: verb
    for verb in (
        archive.VERB,
        backup.VERB,
        create_server.VERB,
        delete.VERB,
        delete_server.VERB,
        enrol.VERB,
        export.VERB,
        limit.VERB,
        migrate.VERB,
        move.VERB,
        move_finish.VERB,
        move_reverse.VERB,
        move_to_new.VERB,
        move_undo.VERB,
        prepare.VERB,
        provision.VERB,
        purge.VERB,
        reclaim.VERB,
        rekey.VERB,
        restore.VERB,
        restore_beside.VERB,
        restore_undo.VERB,
        resume.VERB,
        retire_login.VERB,
        rollout.VERB,
        rotate.VERB,
        shred.VERB,
        survey.VERB,
        suspend.VERB,
        unarchive.VERB,
        undelete.VERB,
        verify_backup.VERB,
    )
}


def _every(seconds: float, tick: str) -> dict[str, object]:
    # A tick that waited longer than its period is dropped: the next one does its work.
    return {
        "task": f"tenantry.{tick}",
        "schedule": seconds,
        "options": {"queue": "control", "expires": max(2.0, seconds)},
    }


settings = Settings.from_environment()
app = celery_app(settings)
app.conf.update(
    # Acknowledged when a child takes it: an acknowledgement after the work can be lost with Redis,
    # and then occupies a place of the prefetch for good, so there are many. What a dead child
    # leaves, the sweeper rings.
    task_acks_late=False,
    worker_prefetch_multiplier=16,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_soft_shutdown_timeout=20,
    worker_max_tasks_per_child=2000,
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    broker_connection_max_retries=None,
    # A copy of a large tenant takes hours; what hangs is ended by its own deadlines.
    task_time_limit=7 * 24 * 3600,
    beat_schedule={
        "sweep": _every(settings.engine.sweep_seconds, "sweep"),
        "retire_due_logins": _every(5, "retire_due_logins"),
        "release_stale_pauses": _every(5, "release_stale_pauses"),
        "tend_pools": _every(2, "tend_pools"),
        "watch_servers": _every(10, "watch_servers"),
        "alert_overdue": _every(30, "alert_overdue"),
        "reset_drift": _every(60, "reset_drift"),
        "tend_databases": _every(5, "tend_databases"),
        "forget_old": _every(3600, "forget_old"),
        "plan_backups": _every(5, "plan_backups"),
        "plan_drills": _every(60, "plan_drills"),
        "watch_rpo": _every(30, "watch_rpo"),
        "prune_backups": _every(300, "prune_backups"),
        "collect_garbage": _every(3600, "collect_garbage"),
        "back_up_catalog": _every(60, "back_up_catalog"),
        "drop_replaced": _every(60, "drop_replaced"),
        "end_deletions": _every(5, "end_deletions"),
        "delete_expired_exports": _every(30, "delete_expired_exports"),
        "advance_drains": _every(5, "advance_drains"),
        "redial_ways_back": _every(10, "redial_ways_back"),
        "sample_usage": _every(settings.usage_seconds, "sample_usage"),
        "watch_noise": _every(settings.usage_seconds, "watch_noise"),
        "roll_up_usage": _every(60, "roll_up_usage"),
        "delete_stray_bundles": _every(3600, "delete_stray_bundles"),
    },
)
TICKS = {
    **backup_ticks.TICKS,
    **lifecycle_ticks.TICKS,
    **move_ticks.TICKS,
    **reconcile.TICKS,
    **upkeep.TICKS,
    **usage_ticks.TICKS,
}
register(app, settings, VERBS, TICKS)
register_pulse(app, settings.engine.pulse_file)
