"""The doorbell: a hint to idle workers that work has come. Losing one costs a poll's length, never a job."""

from typing import Protocol


class Doorbell(Protocol):
    """Whatever wakes a worker."""

    async def ring(self) -> bool:
        """Ring once, within a quarter of a second, without raising. True: the hint was handed over."""

    async def answers(self) -> bool:
        """Whether a ring would be handed over now; asked of the server, as bounded and quiet as `ring`."""


class NoDoorbell:
    """For installations without Redis: workers find their work by polling."""

    async def ring(self) -> bool:
        return False

    async def answers(self) -> bool:
        return False
