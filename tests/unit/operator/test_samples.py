"""The samples of managed runtimes: with the Secrets that they name every child can be built, and no word is ignored."""

from pathlib import Path
from typing import Final

import pytest
import yaml

from commonplace_operator.planning.unimplemented import unimplemented_in_runtime
from tests.unit.operator.managed import OWNER_URI, QUEUE_URI, Example, children, managed

MANAGED: Final = Path(__file__).resolve().parents[3] / "docs" / "samples" / "managed"
SECRETS: Final = {
    "memory-database-owner": {"uri": OWNER_URI},
    "memory-redis": {"uri": QUEUE_URI},
    "anthropic": {"api-key": "hunter2-anthropic"},
}
TRIAL: Final = {"StatefulSet"}
PRODUCTION: Final = {"Ingress", "HorizontalPodAutoscaler", "ServiceMonitor"}


@pytest.mark.parametrize(("file", "only_there"), [("runtime.yaml", TRIAL), ("production.yaml", PRODUCTION)])
def test_a_managed_sample_becomes_all_of_its_children(file: str, only_there: set[str]) -> None:
    spec = yaml.safe_load((MANAGED / file).read_text())["spec"]
    # The API server fills these in.
    if provider := spec.get("provider"):
        provider["secretRef"].setdefault("key", "api-key")
    example = Example(spec=spec, secrets=SECRETS)

    kinds = {manifest["kind"] for manifest in children(example)}

    assert unimplemented_in_runtime(managed(example)) == ()
    assert {"Secret", "Service", "Job", "Deployment", "NetworkPolicy", "PodDisruptionBudget"} <= kinds
    assert kinds & (TRIAL | PRODUCTION) == only_there
