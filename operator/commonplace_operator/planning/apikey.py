"""
Publish after valid: what makes cluster and database agree with an ApiKey.

A new token goes in four steps: its hash into an unpublished row (which already authenticates), the token into the
Secret, the row published while the previous one enters its grace period, the status. A crash between any two leaves a
Secret whose token works. First issue, rotation, a lost or edited Secret and a restored database are this one path;
what differs is which of the steps are already done. The traces: `docs/decisions/0020-operator-publish-after-valid.md`.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

from commonplace_operator.children.secret import MacKey, SecretFacts, is_current, key_secret
from commonplace_operator.resources import names
from commonplace_operator.resources.durations import parse_duration
from commonplace_operator.resources.objects import ApiKey
from commonplace_operator.resources.rows import Grant, KeyRow, NewKey, ObservedKeys
from commonplace_operator.resources.token import Token

DEFAULT_GRACE: Final = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Amend:
    """Let the live rows grant what the object grants now."""

    grant: Grant


@dataclass(frozen=True, kw_only=True)
class PutRow:
    """Step 1: the hash of a token that nobody holds yet, or that a restored database forgot."""

    key: NewKey


@dataclass(frozen=True, kw_only=True)
class WriteSecret:
    """Step 2. `live` None: create it; else apply over exactly that uid and resourceVersion."""

    token: Token
    revision: int
    live: SecretFacts | None


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Step 3: `revision` becomes the published key, the one before it enters `grace_seconds` of grace."""

    revision: int
    grace_seconds: int


@dataclass(frozen=True, kw_only=True)
class Revoke:
    """Refuse every key of the object."""


@dataclass(frozen=True, kw_only=True)
class DeleteSecret:
    """A token that no longer works is taken out of sight."""

    name: str
    uid: str


Step: TypeAlias = Amend | PutRow | WriteSecret | Publish | Revoke | DeleteSecret
Outcome: TypeAlias = Literal["settled", "issued", "rotated", "readopted", "repaired", "revoked", "expired", "conflict"]


@dataclass(frozen=True, kw_only=True)
class KeyPlan:
    """Steps in order, and what they amount to."""

    steps: tuple[Step, ...]
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class KeyWorld:
    """What was observed. `team_uid` is the MemoryTeam's; `stale_secret` is ours under a name no longer wanted."""

    keys: ObservedKeys
    secret: SecretFacts | None
    team_uid: str
    endpoint: str
    mac_key: MacKey
    stale_secret: tuple[str, SecretFacts] | None = None


@dataclass(frozen=True, kw_only=True)
class Minted:
    """A token and a row id, in case they are needed."""

    token: Token
    row_id: str = field(repr=False)


def rotation_interval(key: ApiKey) -> timedelta | None:
    """How often the token is replaced, None for never. Raises SpecError."""
    return parse_duration(key.spec.rotation.interval) if key.spec.rotation else None


def grace_period(key: ApiKey) -> timedelta:
    """How long the previous token still works; 24 h unless the object says otherwise. Raises SpecError."""
    rotation = key.spec.rotation
    return parse_duration(rotation.grace_period) if rotation and rotation.grace_period else DEFAULT_GRACE


def wanted_grant(key: ApiKey) -> Grant:
    """What the object grants."""
    return Grant(project=key.spec.project, actor=key.actor, scopes=key.spec.scopes, expires_at=key.spec.expires_at)


def next_rotation(key: ApiKey, published: KeyRow | None) -> datetime | None:
    """When the interval asks for the next token."""
    interval = rotation_interval(key)
    if interval is None or published is None or published.published_at is None:
        return None
    return published.published_at + interval


def is_rotation_due(key: ApiKey, published: KeyRow, now: datetime) -> bool:
    """By interval, or by a value of the annotation that no token has answered yet."""
    mark = key.metadata.annotations.get(names.ANNOTATION_ROTATE)
    if mark is not None and mark != published.rotation_mark:
        return True
    due = next_rotation(key, published)
    return due is not None and due <= now


def plan_api_key(key: ApiKey, world: KeyWorld, minted: Minted) -> KeyPlan:
    """
    Decide what makes cluster and database agree with `key`; the clock is the database's.

    Raises SpecError for a duration that the schema should have refused.
    """
    now = world.keys.now
    if key.spec.revoked:
        return _end(key, world, "revoked")
    if key.spec.expires_at is not None and key.spec.expires_at <= now:
        return _end(key, world, "expired")
    if world.secret is not None and not world.secret.belongs_to(key):
        return _stand_back(key, world)
    held = world.secret.token if world.secret else None
    row = next((row for row in world.keys.keys if held is not None and row.token_hash == held.hash), None)
    amend = _amend(key, world.keys)
    if held is None or row is None or row.state == "grace":
        return _readopt(key, world, minted, amend) or _replace(key, world, minted, amend)
    if row.state == "unpublished":
        # The crash was between steps 2 and 3.
        outcome: Outcome = "rotated" if world.keys.in_state("published") else "issued"
        repair = _repair(key, world, held, row.revision)
        return KeyPlan(steps=(*amend, *repair, _publish(key, row.revision), *_drop_stale(world)), outcome=outcome)
    if is_rotation_due(key, row, now):
        return _replace(key, world, minted, amend)
    repair = _repair(key, world, held, row.revision)
    steps = (*amend, *repair, *_drop_stale(world))
    return KeyPlan(steps=steps, outcome="repaired" if repair else "settled")


def _end(key: ApiKey, world: KeyWorld, outcome: Literal["revoked", "expired"]) -> KeyPlan:
    steps: list[Step] = [Revoke()] if world.keys.keys else []
    if key.spec.secret.deletion_policy == "Delete":
        if world.secret is not None and world.secret.belongs_to(key):
            steps.append(DeleteSecret(name=key.secret_name, uid=world.secret.uid))
        steps.extend(_drop_stale(world))
    return KeyPlan(steps=tuple(steps), outcome=outcome)


def _stand_back(key: ApiKey, world: KeyWorld) -> KeyPlan:
    """Somebody else's Secret is never touched. A narrower grant still takes effect; a row nobody holds goes."""
    only_unheld = bool(world.keys.keys) and all(row.state == "unpublished" for row in world.keys.keys)
    return KeyPlan(steps=(Revoke(),) if only_unheld else _amend(key, world.keys), outcome="conflict")


def _amend(key: ApiKey, keys: ObservedKeys) -> tuple[Step, ...]:
    grant = wanted_grant(key)
    return (Amend(grant=grant),) if any(row.grant != grant for row in keys.keys) else ()


def _publish(key: ApiKey, revision: int) -> Publish:
    return Publish(revision=revision, grace_seconds=int(grace_period(key).total_seconds()))


def _repair(key: ApiKey, world: KeyWorld, token: Token, revision: int) -> tuple[Step, ...]:
    assert world.secret is not None  # noqa: S101 - the token came out of it
    wanted = key_secret(
        key,
        token,
        endpoint=world.endpoint,
        team_uid=world.team_uid,
        revision=revision,
        mac_key=world.mac_key,
    )
    if is_current(world.secret, wanted, owner_uid=key.uid):
        return ()
    return (WriteSecret(token=token, revision=revision, live=world.secret),)


def _drop_stale(world: KeyWorld) -> tuple[Step, ...]:
    if world.stale_secret is None:
        return ()
    name, facts = world.stale_secret
    return (DeleteSecret(name=name, uid=facts.uid),)


def _new_row(key: ApiKey, keys: ObservedKeys, *, row_id: str, revision: int, token: Token) -> PutRow:
    mark = key.metadata.annotations.get(names.ANNOTATION_ROTATE)
    published = keys.in_state("published")
    if mark is None and published is not None:
        mark = published.rotation_mark
    return PutRow(
        key=NewKey(
            id=row_id,
            revision=revision,
            token_id=token.id,
            token_hash=token.hash,
            name=f"{key.namespace}/{key.name}",
            grant=wanted_grant(key),
            rotation_mark=mark,
        )
    )


def _readopt(key: ApiKey, world: KeyWorld, minted: Minted, amend: tuple[Step, ...]) -> KeyPlan | None:
    """
    A restored database forgot the row of a token that we issued: put the hash back, the token stays.

    A revision that the database knows was superseded or revoked, so its token is not brought back to life.
    """
    secret = world.secret
    if secret is None or not secret.is_signed(world.mac_key, team_uid=world.team_uid, key_uid=key.uid):
        return None
    token, revision = secret.token, secret.revision
    if token is None or revision is None or revision <= world.keys.newest_revision:
        return None
    row = _new_row(key, world.keys, row_id=minted.row_id, revision=revision, token=token)
    repair = _repair(key, world, token, revision)
    return KeyPlan(steps=(*amend, row, *repair, _publish(key, revision)), outcome="readopted")


def _replace(key: ApiKey, world: KeyWorld, minted: Minted, amend: tuple[Step, ...]) -> KeyPlan:
    """A new token: over the unpublished row when there is one (nobody holds its token), else as the next revision."""
    unheld = world.keys.in_state("unpublished")
    revision = unheld.revision if unheld else world.keys.newest_revision + 1
    steps: tuple[Step, ...] = (
        *amend,
        _new_row(key, world.keys, row_id=minted.row_id, revision=revision, token=minted.token),
        WriteSecret(token=minted.token, revision=revision, live=world.secret),
        _publish(key, revision),
        *_drop_stale(world),
    )
    return KeyPlan(steps=steps, outcome="rotated" if world.keys.in_state("published") else "issued")
