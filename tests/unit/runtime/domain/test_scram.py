"""The verifier against the exchange that RFC 7677 prints."""

import base64
import hashlib
import hmac

from commonplace_runtime.domain.scram import scram_verifier

CLIENT_FIRST = "n=user,r=rOprNGfwEbeRWgbNEkqO"
NONCE = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
PROOF = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_it_proves_the_exchange_of_the_rfc() -> None:
    verifier = scram_verifier("pencil", base64.b64decode(SALT), 4096)

    method, numbers, keys = verifier.split("$")
    assert (method, numbers) == ("SCRAM-SHA-256", f"4096:{SALT}")
    stored_key, server_key = (base64.b64decode(part) for part in keys.split(":"))
    message = f"{CLIENT_FIRST},r={NONCE},s={SALT},i=4096,c=biws,r={NONCE}".encode()
    assert hmac.digest(server_key, message, "sha256") == base64.b64decode(SERVER_SIGNATURE)
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(base64.b64decode(PROOF), signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
