"""How to reach a tenant server as its administrator."""

from uuid import UUID

from control_plane.adapters.keyring import Keyring
from control_plane.adapters.postgres_server import ServerAddress
from control_plane.catalog.servers import Server
from control_plane.config import Secret

_PURPOSE = "server_admin"
_VERSION = 1


def seal_admin_password(keyring: Keyring, server_id: UUID, password: str) -> bytes:
    """Ciphertext bound to this server: it opens for no other (S-28)."""
    return keyring.seal(password, owner=server_id, purpose=_PURPOSE, version=_VERSION)


def open_admin_password(keyring: Keyring, server_id: UUID, sealed: bytes) -> Secret:
    """What ``seal_admin_password`` sealed for this server.

    Raises:
        KeyUnavailable: the keyring does not open it.
    """
    return Secret(keyring.open(sealed, owner=server_id, purpose=_PURPOSE, version=_VERSION))


def server_address(keyring: Keyring, server: Server) -> ServerAddress:
    """Where and as whom to connect.

    Raises:
        KeyUnavailable: the keyring does not open the stored password.
    """
    return ServerAddress(
        host=server.host,
        port=server.port,
        user=server.admin_login,
        password=open_admin_password(keyring, server.id, server.sealed_password),
        hostaddr=server.hostaddr,
        tls=server.tls,
        ca_pem=server.ca_pem,
    )
