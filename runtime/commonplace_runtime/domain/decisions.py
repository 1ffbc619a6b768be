"""A decision as a text that is found by its words and read without its record."""

from collections.abc import Sequence


def decision_text(decision: str, *, rationale: str | None, alternatives: Sequence[str]) -> str:
    """What was decided, why, and what was not chosen; a part that is missing leaves no heading."""
    parts = [decision.strip()]
    if rationale:
        parts.append(f"Why: {rationale.strip()}")
    if alternatives:
        considered = "\n".join(f"- {alternative.strip()}" for alternative in alternatives)
        parts.append(f"Not chosen:\n{considered}")
    return "\n\n".join(parts)
