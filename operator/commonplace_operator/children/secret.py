"""
The Secret of an ApiKey: public API, its keys and annotations included.

Keys `token`, `url`, `mcp-url`, `connect-command` are always there; each format adds its own.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from commonplace_operator.children.metadata import child_metadata
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import ApiKey
from commonplace_operator.resources.token import Token
from commonplace_runtime import contract

KEY_TOKEN: Final = "token"  # noqa: S105 - the name of a key
FORMAT_ENV: Final = "Env"
FORMAT_MCP_JSON: Final = "McpJson"
SECRET_TYPE: Final = "Opaque"  # noqa: S105 - a type


class MacKey:
    """The key under which the operator signs its Secrets; masked like a token."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, *, team_uid: str, key_uid: str, revision: int, token_hash: str) -> str:
        """HMAC-SHA-256, hexadecimal: proof that we issued this token as this revision for this key of this team."""
        message = "\n".join(("commonplace-key-v1", team_uid, key_uid, str(revision), token_hash))
        return hmac.new(self._key, message.encode(), hashlib.sha256).hexdigest()

    def fingerprint(self, *values: str) -> str:
        """Sixteen hexadecimal digits that change when one of `values` does, and from which nobody can guess them."""
        message = "\n".join(("commonplace-fingerprint-v1", *(hashlib.sha256(v.encode()).hexdigest() for v in values)))
        return hmac.new(self._key, message.encode(), hashlib.sha256).hexdigest()[:16]

    def __repr__(self) -> str:
        return "MacKey(***)"


@dataclass(frozen=True, kw_only=True)
class SecretFacts:
    """
    A Secret as it was read. Its data never shows in a repr.

    takeover: a JSON patch to send before the first apply, when the Secret is still as `create` left it.
    """

    uid: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_uids: tuple[str, ...]
    data: Mapping[str, str] = field(repr=False)
    takeover: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> "SecretFacts":
        """From the API server's JSON; bytes that are no UTF-8 become replacement characters."""
        metadata = body["metadata"]
        return cls(
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            labels=metadata.get("labels") or {},
            annotations=metadata.get("annotations") or {},
            owner_uids=tuple(reference["uid"] for reference in metadata.get("ownerReferences") or ()),
            data={
                key: base64.b64decode(value).decode("utf-8", "replace")
                for key, value in (body.get("data") or {}).items()
            },
            takeover=field_takeover(body),
        )

    def belongs_to(self, key: ApiKey) -> bool:
        """Whether we wrote it for `key`; stripping either the label or the reference alone does not disown it."""
        return self.labels.get(names.LABEL_OWNER_UID) == key.uid or key.uid in self.owner_uids

    @property
    def token(self) -> Token | None:
        """The token in it."""
        text = self.data.get(KEY_TOKEN)
        return Token(text) if text else None

    @property
    def revision(self) -> int | None:
        """The revision that it says to hold."""
        text = self.annotations.get(names.ANNOTATION_REVISION, "")
        return int(text) if text.isascii() and text.isdigit() else None

    def is_signed(self, mac_key: MacKey, *, team_uid: str, key_uid: str) -> bool:
        """Whether its MAC proves that we issued this token as this revision for this key of this team."""
        token, revision = self.token, self.revision
        if token is None or revision is None:
            return False
        mac = mac_key.sign(team_uid=team_uid, key_uid=key_uid, revision=revision, token_hash=token.hash)
        return hmac.compare_digest(mac, self.annotations.get(names.ANNOTATION_MAC, ""))


def secret_data(token: Token, *, endpoint: str, formats: tuple[str, ...], name: str) -> dict[str, str]:
    """The keys of the Secret in clear; `name` names the server in `mcp.json`. Unknown formats add nothing."""
    url = endpoint.rstrip("/")
    mcp = contract.mcp_url(endpoint)
    plaintext = token.reveal()
    data = {
        KEY_TOKEN: plaintext,
        "url": url,
        "mcp-url": mcp,
        "connect-command": contract.connect_command(mcp, plaintext),
    }
    if FORMAT_ENV in formats:
        data |= {"MEMORY_API_URL": url, "MEMORY_API_KEY": plaintext}
    if FORMAT_MCP_JSON in formats:
        server = {"type": "http", "url": mcp, "headers": {"Authorization": f"Bearer {plaintext}"}}
        data["mcp.json"] = json.dumps({"mcpServers": {name: server}}, indent=2) + "\n"
    return data


def key_secret(
    key: ApiKey, token: Token, *, endpoint: str, team_uid: str, revision: int, mac_key: MacKey
) -> dict[str, Any]:
    """The Secret that holds `token` as `revision` of `key`."""
    data = secret_data(token, endpoint=endpoint, formats=key.spec.secret.formats, name="commonplace")
    content = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    template = key.spec.secret.template
    return {
        "apiVersion": names.SECRET.api_version,
        "kind": names.SECRET.kind,
        "metadata": child_metadata(
            key,
            name=key.secret_name,
            labels={**template.labels, names.LABEL_API_KEY: key.name},
            annotations={
                **template.annotations,
                names.ANNOTATION_REVISION: str(revision),
                names.ANNOTATION_CONTENT_HASH: hashlib.sha256(content).hexdigest(),
                names.ANNOTATION_MAC: mac_key.sign(
                    team_uid=team_uid, key_uid=key.uid, revision=revision, token_hash=token.hash
                ),
            },
            owned=key.spec.secret.deletion_policy == "Delete",
        ),
        "type": SECRET_TYPE,
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }


def is_current(live: SecretFacts, wanted: Mapping[str, Any], *, owner_uid: str) -> bool:
    """Whether `live` says all that `wanted` says; what others added to it is theirs."""
    metadata = wanted["metadata"]
    data = {key: base64.b64decode(value).decode() for key, value in wanted["data"].items()}
    return (
        all(live.data.get(key) == value for key, value in data.items())
        and all(live.labels.get(key) == value for key, value in metadata["labels"].items())
        and all(live.annotations.get(key) == value for key, value in metadata["annotations"].items())
        and (owner_uid in live.owner_uids) == ("ownerReferences" in metadata)
    )


def field_takeover(live: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """
    JSON patch that turns our field ownership by `create` into ownership by apply; empty when there is none.

    Without it a key that a later apply leaves out would stay for ever, old token included, for the entry of `create`
    still owns it. Source: k8s.io/client-go/util/csaupgrade.
    """
    entries = live["metadata"].get("managedFields") or []
    ours = [e for e in entries if e.get("manager") == names.FIELD_MANAGER and not e.get("subresource")]
    created = [entry for entry in ours if entry.get("operation") == "Update"]
    if not created:
        return ()
    upgraded = [entry for entry in entries if entry not in ours]
    upgraded += [entry | {"operation": "Apply"} for entry in created[:1]]
    return (
        {"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]},
        {"op": "replace", "path": "/metadata/managedFields", "value": upgraded},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
    )
