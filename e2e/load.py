"""Events as agents send them, in numbers, and whether what was acknowledged is still there."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from e2e.report import CheckFailed

BATCH: Final = 50
_RETRY_SECONDS: Final = 0.2


def event(session: str, text: str, *, number: int = 0) -> dict[str, Any]:
    """A tool's result in one session of an agent."""
    return {
        "projectId": "checkout",
        "sourceType": "hook",
        "eventType": "tool_use",
        "occurredAtEpoch": 1_795_194_000_000 + number,
        "contentSessionId": session,
        "platformSource": "claude",
        "payload": {
            "tool_name": "Edit",
            "tool_input": {"file_path": f"src/module_{number}.py", "old_string": "a", "new_string": "b"},
            "tool_response": text,
        },
    }


@dataclass(kw_only=True)
class Sender:
    """
    Sends events with one key, again until they are acknowledged; keeps what was.

    refused: tries that had to be repeated. faults: why a stream ended before it was told to.
    """

    url: str
    token: str
    http: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=10))
    acknowledged: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    refused: int = 0
    faults: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, batch: Sequence[dict[str, Any]], *, give_up: Callable[[], bool] = lambda: False) -> None:
        """One batch; a connection that breaks and a 5xx are tried again until `give_up`."""
        while not give_up():
            answer = self._post(batch)
            if answer is not None and answer.status_code == 201:
                found = answer.json()["events"]
                with self._lock:
                    self.acknowledged += [item["event"]["id"] for item in found]
                    self.jobs += [item["generationJob"]["id"] for item in found]
                return
            if answer is not None and answer.status_code < 500:
                raise CheckFailed(f"POST /v1/events/batch: HTTP {answer.status_code} {answer.text[:200]}")
            with self._lock:
                self.refused += 1
            time.sleep(_RETRY_SECONDS)

    def _post(self, batch: Sequence[dict[str, Any]]) -> httpx2.Response | None:
        headers = {"Authorization": f"Bearer {self.token}"}
        try:
            return self.http.post(f"{self.url}/v1/events/batch", json=list(batch), headers=headers)
        except httpx2.HTTPError:
            return None

    def burst(self, count: int, *, threads: int = 4) -> None:
        """`count` events, each in a session of its own, as fast as they are taken."""
        run = uuid.uuid4().hex[:8]
        events = [event(f"{run}-{n}", f"burst {run} number {n}", number=n) for n in range(count)]
        batches = [events[start : start + BATCH] for start in range(0, count, BATCH)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.send, batches))

    def stream(self, stop: threading.Event, *, pause: float = 0.1) -> None:
        """Small batches until `stop`, as agents at work send them; for a thread: what ends it early is in `faults`."""
        try:
            self._stream(stop, pause)
        except Exception as error:  # noqa: BLE001 - nobody would hear of it from a thread
            with self._lock:
                self.faults.append(f"{type(error).__name__}: {error}")

    def _stream(self, stop: threading.Event, pause: float) -> None:
        run = uuid.uuid4().hex[:8]
        for number in itertools.count():
            if stop.is_set():
                return
            batch = [event(f"{run}-{number}-{n}", f"stream {run} number {number}-{n}", number=number) for n in range(5)]
            self.send(batch, give_up=stop.is_set)
            stop.wait(pause)

    def lost(self) -> list[str]:
        """Events that were acknowledged and are not there."""
        headers = {"Authorization": f"Bearer {self.token}"}

        def is_lost(event_id: str) -> bool:
            return self.http.get(f"{self.url}/v1/events/{event_id}", headers=headers).status_code != 200

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(is_lost, self.acknowledged))
        return [event_id for event_id, gone in zip(self.acknowledged, found, strict=True) if gone]

    def unfinished(self) -> list[str]:
        """Jobs of acknowledged events that are not completed."""
        headers = {"Authorization": f"Bearer {self.token}"}

        def is_open(job: str) -> bool:
            answer = self.http.get(f"{self.url}/v1/jobs/{job}", headers=headers)
            return answer.status_code != 200 or answer.json()["generationJob"]["status"] != "completed"

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(is_open, self.jobs))
        return [job for job, left in zip(self.jobs, found, strict=True) if left]
