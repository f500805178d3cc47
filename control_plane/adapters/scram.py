"""SCRAM-SHA-256 secrets made on our side, so that no server ever sees a password (S-16).

RFC 5802 §3 and RFC 7677; the text form is the one Postgres keeps in ``pg_authid.rolpassword``.
Our passwords are ASCII, on which SASLprep (RFC 4013) changes nothing.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets

from control_plane.config import Secret

# What Postgres itself uses (scram_iterations, 15 to 18); 256-bit secrets gain nothing from more.
ITERATIONS = 4096
VERIFIER_PATTERN = re.compile(
    r"SCRAM-SHA-256\$([1-9][0-9]{0,6}):([A-Za-z0-9+/]{4,64}={0,2})"
    r"\$([A-Za-z0-9+/]{43}=):([A-Za-z0-9+/]{43}=)"
)
_PASSWORD_BYTES = 32
_SALT_BYTES = 16


def new_password() -> Secret:
    """256 random bits as 43 URL-safe characters: no quoting in a DSN, an ini file or a shell."""
    return Secret(secrets.token_urlsafe(_PASSWORD_BYTES))


def verifier(password: Secret, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``, a fresh salt unless given.

    Raises:
        ValueError: the password is not printable ASCII, which would need SASLprep.
    """
    text = password.reveal()
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("a generated password is printable ASCII; this one is not")
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", text.encode("ascii"), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def matches(password: Secret, stored: str | None) -> bool:
    """Whether ``stored`` (a verifier, or whatever a server holds instead) is of this password."""
    found = VERIFIER_PATTERN.fullmatch(stored or "")
    if found is None or stored is None:
        return False
    try:
        salt = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        return False
    return hmac.compare_digest(verifier(password, salt, int(found[1])), stored)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
