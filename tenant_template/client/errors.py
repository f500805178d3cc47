"""What the kit raises on purpose. No message ever holds a value, a key or a password."""

from sqlalchemy.exc import DontWrapMixin


class KitError(Exception):
    """Base of everything below; the message says what to do."""


class TenantMismatch(KitError):
    """The database behind the connection is another tenant's; nothing was read or changed."""


class CannotDecrypt(KitError):
    """A sealed value does not open: unknown key, damaged, or moved from where it was written."""


class NotNormal(KitError):
    """A value cannot be brought into the form that its blind index compares."""


class NoTransaction(KitError):
    """An acting user is named inside a transaction, and there was none."""


class Misuse(KitError, DontWrapMixin):
    """An encrypted attribute was used in a way that would lose data or show plain text."""


class ControlPlaneRefused(KitError):
    """The control plane answered no: wrong key, unknown tenant, or the tenant is not active."""


class ControlPlaneUnavailable(KitError):
    """The control plane does not answer, or asks to come back later."""
