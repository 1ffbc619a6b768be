"""How many calls a process has under way at once, and when a further session may be claimed for the next of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

AHEAD_SECONDS: Final = 1.0
"""While calls are shorter than this, sessions are claimed and written while all slots are busy."""
_NEWEST_SHARE: Final = 0.2


class CallSlots:
    """
    At most `size` calls at once.

    Claiming and writing take a few milliseconds of each turn. Where calls are short, a turn that waits for its slot
    keeps the provider busy meanwhile; where they are long, it would only keep its session from another worker.
    """

    def __init__(self, size: int) -> None:
        self._slots = asyncio.Semaphore(size)
        self._freed = asyncio.Event()
        # Until a call has shown that it is short.
        self._mean_seconds = AHEAD_SECONDS

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """A slot, for one call."""
        await self._slots.acquire()
        started = monotonic()
        try:
            yield
        finally:
            self._mean_seconds += _NEWEST_SHARE * (monotonic() - started - self._mean_seconds)
            self._slots.release()
            self._freed.set()

    async def room(self) -> None:
        """Until it makes sense to claim a session."""
        while self._slots.locked() and self._mean_seconds >= AHEAD_SECONDS:
            self._freed.clear()
            await self._freed.wait()
