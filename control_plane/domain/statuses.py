"""From our errors to HTTP statuses, for whatever answers in HTTP."""

from control_plane.domain import errors
from control_plane.domain.errors import TenantryError

# Every error has the status of its nearest ancestor here; what has none is our own fault.
STATUS: dict[type[TenantryError], int] = {
    errors.Unauthenticated: 401,
    errors.Denied: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.ServerRefused: 422,
    errors.CatalogUnavailable: 503,
    errors.CatalogMismatch: 503,
    errors.CatalogNotAccepted: 503,
    errors.ServerUnavailable: 503,
    errors.PoolerUnavailable: 503,
    errors.KeyUnavailable: 503,
    errors.StoreUnavailable: 503,
    errors.IdentityProviderUnavailable: 503,
    TenantryError: 500,
}


def status_of(error: TenantryError) -> int:
    """The status that tells this error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
