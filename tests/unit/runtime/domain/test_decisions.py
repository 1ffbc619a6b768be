"""How a decision reads."""

from commonplace_runtime.domain.decisions import decision_text


def test_a_decision_alone_has_no_headings() -> None:
    assert decision_text(" Use Postgres \n", rationale=None, alternatives=[]) == "Use Postgres"


def test_reasons_and_alternatives_follow() -> None:
    text = decision_text("Use Postgres", rationale="one store", alternatives=["Redis: loses jobs", " Kafka "])
    assert text == "Use Postgres\n\nWhy: one store\n\nNot chosen:\n- Redis: loses jobs\n- Kafka"
