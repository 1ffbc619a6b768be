"""
The SCRAM-SHA-256 verifier of a password: what Postgres stores, made here so that the password itself never leaves.

Like psql's `\\password`: a statement with the clear password would stand in the server's log when it fails.
"""

import base64
import hashlib
import hmac
import stringprep
import unicodedata
from typing import Final

ITERATIONS: Final = 4096
"""Postgres' own default; minted passwords are random, and a guess costs no more for many rounds."""
SALT_BYTES: Final = 16


def scram_verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """
    `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as `PASSWORD '…'` takes it.

    salt: random bytes, `SALT_BYTES` of them. Source: RFC 5802 section 3, RFC 7677; the form is of pg_authid.
    """
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_base64(salt)}${_base64(stored_key)}:{_base64(server_key)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _prepared(password: str) -> bytes:
    """The password after SASLprep (RFC 4013); as it is where SASLprep forbids it, as Postgres does."""
    raw = password.encode("utf-8", "surrogatepass")
    if password.isascii():
        return raw
    mapped = "".join(
        " " if stringprep.in_table_c12(letter) else letter for letter in password if not stringprep.in_table_b1(letter)
    )
    text = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    return text.encode() if text and _is_allowed(text) else raw


def _is_allowed(text: str) -> bool:
    forbidden = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if any(table(letter) for letter in text for table in forbidden):
        return False
    if not any(stringprep.in_table_d1(letter) for letter in text):
        return True
    # Right-to-left text starts and ends so, and holds nothing that goes left to right.
    from_right = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return from_right and not any(stringprep.in_table_d2(letter) for letter in text)
