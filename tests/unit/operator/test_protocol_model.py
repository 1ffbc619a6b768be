"""
Publish-after-valid against a small model of the world, with crashes, edits and restores at random.

The model's rows behave like the SQL functions, its Secret like the API server's. What must always hold:
I1 a token that we left in the Secret works; I2 at most one published row; I5 at most one unpublished row; I6 two passes
without a fault settle everything; I8 a settled key asks for nothing.
"""

from datetime import timedelta
from itertools import count
from typing import assert_never

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from commonplace_operator.children.secret import SecretFacts, key_secret
from commonplace_operator.planning.apikey import (
    Amend,
    DeleteSecret,
    KeyPlan,
    Minted,
    Publish,
    PutRow,
    Revoke,
    Step,
    WriteSecret,
    plan_api_key,
)
from commonplace_operator.resources.objects import ApiKey
from commonplace_operator.resources.rows import KeyRow, ObservedKeys
from tests.unit.operator.factories import ENDPOINT, MAC_KEY, NOW, TEAM_UID, api_key, facts, token, world


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = count(1)
        self.now = NOW
        self.rows: tuple[KeyRow, ...] = ()
        self.newest = 0
        self.secret: SecretFacts | None = None
        self.tampered = False
        self.restored = False
        self.mark: str | None = None
        self.scopes = ["memories:read"]
        self.revoked = False

    # The world

    def key(self) -> ApiKey:
        annotations = {"commonplace.dev/rotate": self.mark} if self.mark else {}
        return api_key(annotations=annotations, scopes=self.scopes, revoked=self.revoked)

    def observed(self) -> ObservedKeys:
        return ObservedKeys(newest_revision=self.newest, now=self.now, keys=self.rows)

    def plan(self) -> KeyPlan:
        number = next(self.numbers)
        minted = Minted(token=token(number), row_id=f"row-{number}")
        return plan_api_key(self.key(), world(self.observed(), self.secret), minted)

    def carry_out(self, step: Step) -> None:
        match step:
            case Amend(grant=grant):
                self.rows = tuple(self.changed(row, grant=grant) for row in self.rows)
            case PutRow(key=new):
                kept = tuple(row for row in self.rows if row.state != "unpublished")
                assert all(row.revision != new.revision for row in kept)
                self.rows = (
                    *kept,
                    KeyRow(
                        id=str(new.id),
                        team_id="team-id",
                        revision=new.revision,
                        state="unpublished",
                        token_hash=new.token_hash,
                        grant=new.grant,
                        rotation_mark=new.rotation_mark,
                    ),
                )
                self.newest = max(self.newest, new.revision)
            case WriteSecret(token=held, revision=revision, live=live):
                assert (live is None) == (self.secret is None)
                manifest = key_secret(
                    self.key(), held, endpoint=ENDPOINT, team_uid=TEAM_UID, revision=revision, mac_key=MAC_KEY
                )
                self.secret = facts(manifest)
                self.tampered = False
            case Publish(revision=revision, grace_seconds=grace_seconds):
                self.publish(revision, grace_seconds)
            case Revoke():
                self.rows = ()
            case DeleteSecret():
                self.secret = None
            case _:
                assert_never(step)

    def publish(self, revision: int, grace_seconds: int) -> None:
        rows = []
        for row in self.rows:
            if row.revision == revision:
                rows.append(self.changed(row, state="published", published_at=self.now))
            elif row.state == "published":
                until = self.now + timedelta(seconds=grace_seconds)
                rows.append(self.changed(row, state="grace", grace_until=until))
        self.rows = tuple(rows)

    @staticmethod
    def changed(row: KeyRow, **values: object) -> KeyRow:
        return KeyRow(**{**row.__dict__, **values})

    def works(self, token_hash: str) -> bool:
        return any(
            row.token_hash == token_hash
            and (row.state != "grace" or (row.grace_until is not None and row.grace_until > self.now))
            for row in self.rows
        )

    # What happens

    @rule(crash_after=st.integers(0, 6))
    def reconcile(self, crash_after: int) -> None:
        for step in self.plan().steps[:crash_after]:
            self.carry_out(step)
            self.tokens_work()
        if crash_after == 6:
            self.restored = False

    @rule()
    def two_passes_settle(self) -> None:
        for _ in range(2):
            for step in self.plan().steps:
                self.carry_out(step)
        self.tampered = self.restored = False
        assert self.plan().steps == ()
        assert (self.secret is None) == self.revoked
        assert not [row for row in self.rows if row.state == "unpublished"]

    @rule(mark=st.sampled_from(["a", "b", "c", None]))
    def annotate(self, mark: str | None) -> None:
        self.mark = mark

    @rule(wide=st.booleans())
    def change_scopes(self, wide: bool) -> None:
        self.scopes = ["*"] if wide else ["memories:read"]

    @rule()
    def lose_the_secret(self) -> None:
        self.secret = None

    @rule()
    def edit_the_token(self) -> None:
        if self.secret is not None:
            self.secret = SecretFacts(**{**self.secret.__dict__, "data": {"token": "cm_edited"}})
            self.tampered = True

    @rule(hours=st.integers(1, 30))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule()
    def a_restore_loses_all_rows(self) -> None:
        self.rows, self.newest, self.restored = (), 0, True

    @rule()
    def a_restore_loses_the_newest_row(self) -> None:
        self.rows = tuple(row for row in self.rows if row.revision < self.newest)
        self.newest = max((row.revision for row in self.rows), default=0)
        self.restored = True

    # What must hold

    @invariant()
    def tokens_work(self) -> None:
        held = self.secret.token if self.secret else None
        if held is not None and not self.tampered and not self.restored and not self.revoked:
            assert self.works(held.hash)

    @invariant()
    def at_most_one_row_of_each_state(self) -> None:
        states = [row.state for row in self.rows]
        assert all(states.count(state) <= 1 for state in ("published", "grace", "unpublished"))


class RevokedProtocol(Protocol):
    @rule()
    def revoke(self) -> None:
        self.revoked = True


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=300, stateful_step_count=30, deadline=None)
TestRevokedProtocol = RevokedProtocol.TestCase
TestRevokedProtocol.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
