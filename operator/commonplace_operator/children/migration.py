"""The Job that migrates the database, as its owner, before anything of that version runs."""

import hashlib
import json
from typing import Any, Final

from commonplace_operator.children.installation import (
    MIGRATE,
    Installation,
    child_name,
    component_metadata,
    operator_key,
    owner_key,
    runtime_key,
)
from commonplace_operator.children.pods import container, plain, pod_template, secret
from commonplace_operator.resources import names
from commonplace_operator.resources.objects import MemoryRuntime
from commonplace_runtime import contract

REPORT_PATH: Final = "/dev/termination-log"
LONGEST_SECONDS: Final = 3600
_START_SECONDS: Final = 60


def migration_hash(this: Installation) -> str:
    """Eight hexadecimal digits for what the Job would do: image, arguments, credentials. Another one runs anew."""
    text = json.dumps(_template(this), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def migration_job(this: Installation, *, attempt: int) -> dict[str, Any]:
    """
    The Job of try number `attempt` (from 1). It tries once: the operator makes the next one, and says why.

    `commonplace migrate` takes an advisory lock, so that two of them do no harm; its report is the pod's termination
    message.
    """
    runtime = this.runtime
    fingerprint = migration_hash(this)
    metadata = component_metadata(
        runtime,
        MIGRATE,
        name=f"{child_name(runtime, MIGRATE)}-{fingerprint}-{attempt}",
        labels={names.LABEL_MIGRATION: fingerprint},
    )
    return {
        "apiVersion": names.JOB.api_version,
        "kind": names.JOB.kind,
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": LONGEST_SECONDS,
            "template": _template(this),
        },
    }


def _template(this: Installation) -> dict[str, Any]:
    runtime = this.runtime
    args = ["migrate", "--create-roles", "--report-to", REPORT_PATH]
    if allows_older(runtime):
        args.append("--allow-newer-schema")
    the_container = container(
        this,
        MIGRATE,
        args=args,
        env=_environment(runtime),
        resources={},
        terminationMessagePath=REPORT_PATH,
    )
    return pod_template(this, MIGRATE, the_container, grace_seconds=30, restart="Never")


def _environment(runtime: MemoryRuntime) -> list[dict[str, Any]]:
    found = [
        secret(contract.ENV_ADMIN_DATABASE_URL, owner_key(runtime)),
        secret(contract.ENV_RUNTIME_LOGIN_URL, runtime_key(runtime)),
    ]
    if key := operator_key(runtime):
        found.append(secret(contract.ENV_OPERATOR_LOGIN_URL, key))
    found.append(plain("COMMONPLACE_STARTUP_TIMEOUT_SECONDS", str(_START_SECONDS)))
    return found


def allows_older(runtime: MemoryRuntime) -> bool:
    """Whether the author wants this very version although the schema is newer: the documented way back."""
    version = runtime.metadata.annotations.get(names.ANNOTATION_ALLOW_OLDER)
    return version is not None and version == (runtime.spec.version or contract.VERSION)
