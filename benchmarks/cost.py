"""
What does a day of a coding agent cost, and how many of its events are never sent to a model?

`python -m benchmarks.cost` replays three sessions through what the worker does before a call (leave out, fold, trim,
batch) and counts what would be sent, beside the same events sent one by one and whole. An event is dropped (nothing of
it is sent), folded (another tells of it: its equal, or the run of which it is one entry) or sent. No model is called:
the tokens of a prompt are its characters / 3 (code, and a tokenizer that makes more of it than older ones), those of an
answer are assumed, the dollars are list prices.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from benchmarks.sessions import FEATURE_WORK, OPERATIONS, make_session
from commonplace_runtime.domain.condense import condense
from commonplace_runtime.domain.extraction import BATCH_EVENTS, CHARACTERS_A_TOKEN, batch_size, estimate_tokens
from commonplace_runtime.domain.observations import SessionSummary, SourceEvent
from commonplace_runtime.domain.prices import LIST_PRICES, LIST_PRICES_DATE, cost_microusd
from commonplace_runtime.llm.ports import Batch

DEMO: Final = Path(__file__).resolve().parent.parent / "docs" / "samples" / "agent-session.ndjson"
MODEL: Final = "claude-haiku-5-5"
WINDOW: Final = timedelta(seconds=60)
MAX_DIGESTS: Final = 200
OBSERVATIONS_AN_EVENT: Final = 0.35
"""Assumed: of three events that are shown, alone or in a list, about one becomes a memory."""
OBSERVATION_TOKENS: Final = 260
SESSION_TOKENS: Final = 220
EVENTS_A_DAY: Final = 400
DOLLARS_A_DAY: Final = 0.05
NEVER_SENT: Final = 0.5
RECENT: Final = [f"A title of one of the session's newest memories, number {number}" for number in range(1, 11)]
SUMMARY: Final = SessionSummary(request="r" * 200, learned="l" * 240, completed="c" * 240, next_steps="n" * 120)


@dataclass(kw_only=True)
class Spent:
    """
    What one way of sending one session's events came to: dropped, folded, sent.

    equals: of the folded, those that said the same as another.
    """

    calls: int = 0
    dropped: int = 0
    folded: int = 0
    equals: int = 0
    sent: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    microusd: int = 0

    def call(self, tokens_in: int, *, events: Sequence[SourceEvent]) -> None:
        """Count one call that shows these events. A run is worth as many memories as the events that it shows."""
        shown = sum(len(event.shown) for event in events)
        tokens_out = round(shown * OBSERVATIONS_AN_EVENT * OBSERVATION_TOKENS) + SESSION_TOKENS
        self.calls += 1
        self.sent += len(events)
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.microusd += cost_microusd(MODEL, tokens_in, tokens_out)

    def add(self, other: "Spent") -> None:
        """Count in what another session came to."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def demo_session() -> Sequence[SourceEvent]:
    """The session that the demo replays."""
    return [_recorded(json.loads(line)) for line in DEMO.read_text().splitlines()]


def _recorded(line: dict[str, object]) -> SourceEvent:
    epoch = line["occurredAtEpoch"]
    assert isinstance(epoch, int)
    return SourceEvent(
        event_type=str(line["eventType"]),
        source_adapter="hook",
        platform_source="claude",
        occurred_at=datetime.fromtimestamp(epoch / 1000, UTC),
        payload=line["payload"],
    )


def debounced(events: Sequence[SourceEvent]) -> Iterator[Sequence[SourceEvent]]:
    """What becomes due together: after a minute of silence, or when 30 events wait."""
    waiting: list[SourceEvent] = []
    for event in events:
        if waiting and (len(waiting) >= BATCH_EVENTS or event.occurred_at - waiting[-1].occurred_at > WINDOW):
            yield waiting
            waiting = []
        waiting.append(event)
    yield waiting


def run(due: Iterator[Sequence[SourceEvent]]) -> Spent:
    """As the worker does it: condense what is due, then as many events a call as one prompt holds."""
    spent, seen = Spent(), list[str]()
    for events in due:
        condensed = condense(events, seen, fold_runs=True)
        seen = [*seen, *condensed.digests][-MAX_DIGESTS:]
        left = [kept.event for kept in condensed.kept]
        spent.dropped += len(condensed.dropped)
        spent.folded += len(events) - len(condensed.dropped) - len(left)
        spent.equals += sum(len(kept.places) - len(kept.event.shown) for kept in condensed.kept)
        while left:
            size = batch_size(left)
            batch = Batch(project_name="shop", events=left[:size], recent=RECENT, request="r" * 300, summary=SUMMARY)
            spent.call(estimate_tokens(batch), events=batch.events)
            left = left[size:]
    return spent


def run_plain(events: Sequence[SourceEvent]) -> Spent:
    """Every event whole in a call of its own, under the same instructions and without any state."""
    spent = Spent()
    fixed = estimate_tokens(Batch(project_name="shop", events=()))
    for event in events:
        payload = json.dumps(event.payload, ensure_ascii=False, indent=1)
        spent.call(fixed + len(payload) // CHARACTERS_A_TOKEN, events=[event])
    return spent


def main() -> int:
    """Print the table; 1 where a target is missed."""
    sessions = {
        "demo": demo_session(),
        "feature work": make_session(FEATURE_WORK, events=EVENTS_A_DAY, seed=1),
        "operations": make_session(OPERATIONS, events=EVENTS_A_DAY, seed=2),
    }
    price = LIST_PRICES[MODEL]
    print(
        f"{MODEL}, list prices of {LIST_PRICES_DATE}: ${price.input:.2f} in, ${price.output:.2f} out a million tokens"
    )
    print(f"tokens in: characters / {CHARACTERS_A_TOKEN}; tokens out, assumed: {SESSION_TOKENS} a call for the")
    print(f"summary, and for each event shown {OBSERVATIONS_AN_EVENT} observations of {OBSERVATION_TOKENS} tokens\n")
    columns = (
        f"{'events':>7}{'dropped':>8}{'folded':>7}{'sent':>6}{'never':>7}{'calls':>7}{'in':>9}{'out':>8}{'$':>9}"
        f"{'$ a day':>9}"
    )
    print(f"{'session':14}{'way':12}{columns}")
    total, total_events, dearest = Spent(), 0, 0.0
    for name, events in sessions.items():
        ways = {
            "debounce": run(debounced(events)),
            "per-event": run(iter([[event] for event in events])),
            "plain": run_plain(events),
        }
        for way, spent in ways.items():
            print(_row(name, way, len(events), spent))
        total.add(ways["debounce"])
        total_events += len(events)
        dearest = max(dearest, _a_day(ways["debounce"], len(events)))
    print(_row("all", "debounce", total_events, total))
    never = 1 - total.sent / total_events
    print("\nfolded: told by another event that is sent, as its equal or as an entry of its list, shortened.")
    print("never sent: dropped or folded. Of these, entries of lists, whose text is still read in part: ", end="")
    print(f"{total.folded - total.equals} of {total_events} events.")
    print(f"never sent, of all {total_events} events: {never:.1%} (target: at least {NEVER_SENT:.0%})")
    print(f"dearest day of {EVENTS_A_DAY} events, debounced: ${dearest:.4f} (target: at most ${DOLLARS_A_DAY:.2f})")
    return 0 if never >= NEVER_SENT and dearest <= DOLLARS_A_DAY else 1


def _a_day(spent: Spent, events: int) -> float:
    return spent.microusd / 1e6 * EVENTS_A_DAY / events


def _row(name: str, way: str, events: int, spent: Spent) -> str:
    numbers = (
        f"{events:7}{spent.dropped:8}{spent.folded:7}{spent.sent:6}{1 - spent.sent / events:7.0%}{spent.calls:7}"
        f"{spent.tokens_in:9}{spent.tokens_out:8}"
    )
    return f"{name:14}{way:12}{numbers}{spent.microusd / 1e6:9.4f}{_a_day(spent, events):9.4f}"


if __name__ == "__main__":
    sys.exit(main())
