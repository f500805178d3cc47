"""The doorbell: a Celery message that carries an operation id and nothing else.

Losing, repeating or reordering it changes nothing: the sweeper rings again for whatever is due.
"""

import asyncio
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from control_plane.config import Settings
from control_plane.domain.names import encode
from control_plane.domain.operations import Queue

ADVANCE = "tenantry.advance"
_log = structlog.get_logger(__name__)


class Doorbell(Protocol):
    """Wakes a worker for an operation; never raises, may fail silently."""

    async def ring(self, operation_id: UUID, queue: Queue) -> None: ...

    async def unheard(self, queue: Queue) -> int | None:
        """How many messages wait for a worker; ``None`` when the broker does not answer."""


class CeleryDoorbell:
    """Rings over Redis. A broker that is away costs a second, never the request."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    async def ring(self, operation_id: UUID, queue: Queue) -> None:
        try:
            await asyncio.to_thread(self._send, operation_id, queue)
        except (OperationalError, OSError) as error:
            _log.warning("doorbell_silent", operation=encode(operation_id), error=str(error))

    async def unheard(self, queue: Queue) -> int | None:
        try:
            return await asyncio.to_thread(self._count, queue)
        except (OperationalError, OSError) as error:
            _log.warning("doorbell_silent", queue=queue, error=str(error))
            return None

    def _count(self, queue: Queue) -> int:
        with self._app.connection_or_acquire() as connection:
            try:
                count: int = connection.default_channel.queue_declare(queue=queue).message_count
            except connection.connection_errors as error:
                raise OperationalError(str(error)) from error
            return count

    def _send(self, operation_id: UUID, queue: Queue) -> None:
        self._app.send_task(
            ADVANCE, args=[encode(operation_id)], queue=queue, retry=False, ignore_result=True
        )


def broker_url(settings: Settings) -> str:
    """The Redis URL with its password, which is never logged."""
    if settings.redis_password is None:
        return settings.redis_url
    parts = urlsplit(settings.redis_url)
    host = f":{quote(settings.redis_password.reveal(), safe='')}@{parts.hostname}:{parts.port}"
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))


def celery_app(settings: Settings) -> Celery:
    """A Celery application that can send; workers add their tasks to it."""
    app = Celery("tenantry", broker=broker_url(settings))
    app.conf.update(
        broker_transport_options={
            "visibility_timeout": 3600,
            "health_check_interval": 30,
            "socket_connect_timeout": 1,
            "socket_timeout": 5,
            "socket_keepalive": True,
            "max_retries": 0,
        },
        broker_connection_retry_on_startup=True,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue="control",
        timezone="UTC",
    )
    return app
