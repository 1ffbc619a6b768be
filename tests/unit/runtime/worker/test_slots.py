"""When a further session is claimed."""

import asyncio

from commonplace_runtime.services import slots
from commonplace_runtime.services.slots import CallSlots


async def is_roomy(kept: CallSlots) -> bool:
    waiting = asyncio.ensure_future(kept.room())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done = waiting.done()
    waiting.cancel()
    return done


async def test_no_more_calls_than_slots_run_at_once() -> None:
    kept, running, most = CallSlots(3), 0, 0

    async def call() -> None:
        nonlocal running, most
        async with kept.taken():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(call() for _ in range(10)))
    assert most == 3


async def test_sessions_are_claimed_ahead_while_calls_are_short() -> None:
    kept = CallSlots(1)
    async with kept.taken():
        assert not await is_roomy(kept)  # nobody knows yet
    async with kept.taken():
        assert await is_roomy(kept)


async def test_while_calls_are_long_a_session_is_left_to_others_until_a_slot_is_free() -> None:
    kept = CallSlots(1)
    kept._mean_seconds = 100 * slots.AHEAD_SECONDS
    assert await is_roomy(kept)
    async with kept.taken():
        waiting = asyncio.ensure_future(kept.room())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)
