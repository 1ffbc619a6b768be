"""New ids and the clock's reading, for composition roots and I/O shells; pure code gets them as arguments."""

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

_TICKS = 4096
"""Of a millisecond: 12 bits."""
_STEP_BACK = 1000 * _TICKS
_last = 0


def uuid7() -> UUID:
    """
    A time-ordered UUID, version 7 of RFC 9562: 48 bits of milliseconds, 12 of their fraction, 62 of chance.

    In one process each is above the one before, also where many are made at once: lists order by them. A clock that
    is set back by more than a second is followed.
    """
    global _last
    now = time.time_ns() * _TICKS // 1_000_000
    _last = _last + 1 if now <= _last < now + _STEP_BACK else now
    milliseconds, fraction = divmod(_last, _TICKS)
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return UUID(int=value)


def utc_now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251
