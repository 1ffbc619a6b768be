"""How long a stopping worker may take in all."""

from commonplace_runtime.entrypoints.worker import CANCEL_SECONDS, CLOSE_SECONDS
from commonplace_runtime.settings import Settings

KILLED_AFTER_SECONDS = 30
"""Unless told otherwise, by Kubernetes."""


def test_a_worker_hands_its_jobs_back_before_it_is_killed() -> None:
    grace = Settings.model_validate({}).worker_grace_seconds
    assert grace + CANCEL_SECONDS + CLOSE_SECONDS < KILLED_AFTER_SECONDS
