"""The ServiceAccount of a managed runtime's pods."""

from typing import Any

from commonplace_operator.children.installation import Installation, component_metadata
from commonplace_operator.children.pods import account_name
from commonplace_operator.resources import names


def service_account(this: Installation) -> dict[str, Any]:
    """Without any right, and without a token in the pods."""
    runtime = this.runtime
    return {
        "apiVersion": names.SERVICE_ACCOUNT.api_version,
        "kind": names.SERVICE_ACCOUNT.kind,
        "metadata": component_metadata(runtime, "runtime", name=account_name(runtime)),
        "automountServiceAccountToken": False,
    }
