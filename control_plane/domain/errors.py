"""Every error the product raises on purpose.

``code`` is stable and reaches API clients; ``retryable`` decides whether the engine tries again.
"""

from typing import ClassVar


class TenantryError(Exception):
    """Base: one sentence for a person, a stable code, and whether trying again can help."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class NotFound(TenantryError):
    """The thing named in the request does not exist, or may not be seen by this caller."""

    code = "not_found"


class Denied(TenantryError):
    """The caller is known and may not do this."""

    code = "denied"


class Unauthenticated(TenantryError):
    """No key, an unknown key, an expired key or a revoked one."""

    code = "unauthenticated"


class Invalid(TenantryError):
    """The request is well formed and cannot be meant; ``errors`` names fields and remedies."""

    code = "invalid"

    def __init__(self, message: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or []


class Conflict(TenantryError):
    """The request fights with the present state."""

    code = "conflict"


class SlugTaken(Conflict):
    code = "slug_taken"


class OperationInProgress(Conflict):
    """Another operation of the same tenant or server is alive; its id is in ``facts``."""

    code = "operation_in_progress"


class WrongState(Conflict):
    """The tenant, server or operation is not in a state that allows this."""

    code = "wrong_state"


class NoCapacity(Conflict):
    """No server fits; the message says what was looked at and why each was refused."""

    code = "no_capacity"


class IdempotencyMismatch(Invalid):
    """The same Idempotency-Key came with another body."""

    code = "idempotency_key_reused"


class ServerRejected(Invalid):
    """A server cannot be enrolled; ``errors`` lists every problem with its remedy."""

    code = "server_rejected"


class CatalogUnavailable(TenantryError):
    """The catalog does not answer."""

    code = "catalog_unavailable"
    retryable = True


class CatalogNotAccepted(TenantryError):
    """The catalog is a copy restored from a backup; nobody works from it until it is accepted."""

    code = "catalog_not_accepted"


class CatalogMismatch(TenantryError):
    """The catalog's schema and this process are of releases that do not go together."""

    code = "catalog_mismatch"


class CatalogRecovered(TenantryError):
    """The operation was alive in the backup that the catalog was restored from."""

    code = "catalog_recovered"


class ServerUnavailable(TenantryError):
    """A tenant server does not answer, is starting up, or dropped the connection."""

    code = "server_unavailable"
    retryable = True


class ServerRefused(TenantryError):
    """A tenant server answered and refused us: wrong password, no permission, unsafe auth."""

    code = "server_refused"


class DiskFull(TenantryError):
    """SQLSTATE 53100 from a tenant server."""

    code = "disk_full"


class ObjectInUse(TenantryError):
    """Somebody holds what we need for a moment (55006, 55P03, 40001, 40P01)."""

    code = "object_in_use"
    retryable = True


class LockTimeout(ObjectInUse):
    """A migration gave way to the queries of the tenant; it comes back for the lock."""

    code = "lock_timeout"


class RevisionFailed(TenantryError):
    """A revision cannot be applied to this database as it is; nothing of it was kept.

    Of one that runs outside of a transaction, the finished statements are kept and skipped when
    it is tried again.
    """

    code = "revision_failed"


class RolloutIncomplete(TenantryError):
    """A rollout has gone through the fleet and some tenants could not be migrated."""

    code = "rollout_incomplete"


class LintRefused(Invalid):
    """A revision would lock, rewrite or lose data; ``errors`` names each statement's remedy."""

    code = "revision_refused"


class SchemaMismatch(TenantryError):
    """A tenant database is not what the catalog says it is."""

    code = "schema_mismatch"


class TenantMismatch(TenantryError):
    """We are talking to the wrong database or the wrong server; nothing was changed."""

    code = "tenant_mismatch"


class UnexpectedDatabaseError(TenantryError):
    """A database error that no rule knows; tried again a few times, then shown."""

    code = "database_error"
    retryable = True


class PoolerUnavailable(TenantryError):
    """A pooler does not acknowledge; the route is not safe to change."""

    code = "pooler_unavailable"
    retryable = True


class LoginFailed(TenantryError):
    """A tenant's login could not do what it must be able to do."""

    code = "login_failed"
    retryable = True


class LoginStillWorks(TenantryError):
    """A tenant's login could do what it must no longer be able to do."""

    code = "login_still_works"
    retryable = True


class LeaseLost(TenantryError):
    """Another worker owns the operation now; this one stops without writing anything."""

    code = "lease_lost"


class KeyUnavailable(TenantryError):
    """A secret cannot be opened: the key is missing, wrong, or the context does not match."""

    code = "key_unavailable"


class KeyServiceUnavailable(KeyUnavailable):
    """The key service is away, busy, or keeps the key closed for now; the key is still there."""

    retryable = True


class StoreUnavailable(TenantryError):
    """The object store does not answer, is busy, or cut a transfer short."""

    code = "store_unavailable"
    retryable = True


class StoreRefused(TenantryError):
    """The object store answered and refused us: wrong key, no such bucket, clock skew."""

    code = "store_refused"


class ProviderUnavailable(TenantryError):
    """Who makes servers does not answer, is busy, or has no room just now."""

    code = "provider_unavailable"
    retryable = True


class ProviderRefused(TenantryError):
    """Who makes servers will not do this; the message says what to change."""

    code = "provider_refused"


class ChainBroken(TenantryError):
    """Another operation that this one waits for did not succeed; the message names it."""

    code = "chain_broken"


class ObjectMissing(TenantryError):
    """An object that must be in the store is not there."""

    code = "object_missing"


class BackupCorrupt(TenantryError):
    """A backup is damaged, cut short, or not the one it should be; no byte of it was restored."""

    code = "backup_corrupt"


class DumpFailed(TenantryError):
    """``pg_dump`` or ``pg_restore`` ended with an error; the message carries its last words."""

    code = "dump_failed"


class ContentMismatch(TenantryError):
    """A restored database does not hold what the backup's manifest says."""

    code = "content_mismatch"


class ServerUnsuitable(TenantryError):
    """A backup cannot be restored on this server; the message lists every reason."""

    code = "server_unsuitable"


class ReplicationBroken(TenantryError):
    """Changes no longer flow between two servers and never will again by themselves."""

    code = "replication_broken"


class IdentityProviderUnavailable(TenantryError):
    """The identity provider does not answer, or is not what the settings say it is."""

    code = "identity_provider_unavailable"
    retryable = True


class LegalHold(Conflict):
    """The tenant is under legal hold: nothing of it may be destroyed."""

    code = "legal_hold"


class InternalError(TenantryError):
    """A bug of ours; the details are in the log under the operation or correlation id."""

    code = "internal_error"
    retryable = True
