"""The verifier is the one of RFC 7677, and only its own password matches it."""

import base64
import hashlib
import hmac
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.scram import VERIFIER_PATTERN, matches, new_password, verifier
from control_plane.config import Secret

# RFC 7677 §3, the worked example.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST_BARE = "n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = (
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL_BARE = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_PROOF = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
SERVER_SIGNATURE = base64.b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")

passwords = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=64)


def keys(text: str) -> tuple[bytes, bytes]:
    found = VERIFIER_PATTERN.fullmatch(text)
    assert found is not None
    return base64.b64decode(found[3]), base64.b64decode(found[4])


def test_the_worked_example_of_rfc_7677_verifies() -> None:
    stored_key, server_key = keys(verifier(Secret("pencil"), SALT, 4096))
    message = f"{CLIENT_FIRST_BARE},{SERVER_FIRST},{CLIENT_FINAL_BARE}".encode()
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(CLIENT_PROOF, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
    assert hmac.digest(server_key, message, "sha256") == SERVER_SIGNATURE


def test_new_passwords_are_strong_url_safe_and_never_printed() -> None:
    made = {new_password().reveal() for _ in range(100)}
    assert len(made) == 100
    for text in made:
        assert len(base64.urlsafe_b64decode(text + "=")) * 8 >= 192
        assert set(text) <= set(string.ascii_letters + string.digits + "-_")
    secret = new_password()
    assert secret.reveal() not in f"{secret} {secret!r}"


@settings(max_examples=25, deadline=None)
@given(passwords, passwords)
def test_only_its_own_password_matches(mine: str, other: str) -> None:
    stored = verifier(Secret(mine))
    assert VERIFIER_PATTERN.fullmatch(stored)
    assert matches(Secret(mine), stored)
    assert matches(Secret(other), stored) == (mine == other)


def test_two_verifiers_of_one_password_have_different_salts() -> None:
    password = new_password()
    assert verifier(password) != verifier(password)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "secret",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$4096:AAAA",
        "SCRAM-SHA-256$0:W22ZaJ0SNY7soEsUEjb6gQ==$" + "A" * 43 + "=:" + "A" * 43 + "=",
        "SCRAM-SHA-256$4096:AAAAA$" + "A" * 43 + "=:" + "A" * 43 + "=",
    ],
)
def test_what_is_not_a_verifier_matches_nothing(stored: str | None) -> None:
    assert not matches(Secret("secret"), stored)


@pytest.mark.parametrize("text", ["", "pä", "new\nline", "nul\0"])
def test_a_password_that_needs_saslprep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        verifier(Secret(text))
