"""The workers of a managed runtime. How many there are is the autoscaler's: no `replicas` here, ever."""

from collections.abc import Iterator
from typing import Any, Final

from commonplace_operator.children.installation import (
    WORKER,
    Installation,
    SecretKey,
    component_metadata,
    queue_key,
    runtime_key,
    runtime_label,
    selector_labels,
)
from commonplace_operator.children.pods import (
    METRICS,
    START_SECONDS,
    container,
    http_probe,
    plain,
    pod_template,
    ports,
    secret,
    served_environment,
    spread,
)
from commonplace_operator.resources import names
from commonplace_operator.resources.runtime_spec import DEFAULT_PROVIDER_KEY, ProviderSpec
from commonplace_runtime import contract

STOP_SECONDS: Final = 15
"""What a worker needs after its grace to hand jobs back and disconnect."""
BASE_URL_KEY: Final = "base-url"
_KEY_VARIABLES: Final = {
    "anthropic": contract.ENV_ANTHROPIC_API_KEY,
    "gemini": contract.ENV_GEMINI_API_KEY,
    "openai": contract.ENV_OPENAI_API_KEY,
}
_URL_VARIABLES: Final = {
    "anthropic": "COMMONPLACE_ANTHROPIC_BASE_URL",
    "gemini": "COMMONPLACE_GEMINI_BASE_URL",
    "openai": contract.ENV_OPENAI_BASE_URL,
}


def worker_deployment(this: Installation) -> dict[str, Any]:
    """The workers' pods; a new one comes before an old one goes."""
    runtime = this.runtime
    grace = runtime.spec.workers.termination_grace_period_seconds
    template = pod_template(this, WORKER, _container(this), grace_seconds=grace)
    template["spec"] |= spread(runtime, WORKER)
    return {
        "apiVersion": names.DEPLOYMENT.api_version,
        "kind": names.DEPLOYMENT.kind,
        "metadata": component_metadata(runtime, WORKER),
        "spec": {
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(runtime, WORKER)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": template,
        },
    }


def worker_service(this: Installation) -> dict[str, Any]:
    """Names the workers' pods for whoever scrapes their metrics; nobody else calls them."""
    return {
        "apiVersion": names.SERVICE.api_version,
        "kind": names.SERVICE.kind,
        "metadata": component_metadata(this.runtime, WORKER),
        "spec": {
            "clusterIP": "None",
            "selector": selector_labels(this.runtime, WORKER),
            "ports": [{"name": METRICS, "port": contract.METRICS_PORT, "targetPort": METRICS, "protocol": "TCP"}],
        },
    }


def _container(this: Installation) -> dict[str, Any]:
    return container(
        this,
        WORKER,
        args=["worker"],
        env=_environment(this),
        resources=this.runtime.spec.workers.resources,
        ports=ports(**{METRICS: contract.METRICS_PORT}),
        startupProbe=http_probe(contract.HEALTH_PATH, METRICS, period=2, failures=START_SECONDS // 2),
        livenessProbe=http_probe(contract.HEALTH_PATH, METRICS, period=10, failures=3),
        readinessProbe=http_probe(contract.WORKER_READINESS_PATH, METRICS, period=5, failures=3),
    )


def _environment(this: Installation) -> list[dict[str, Any]]:
    runtime = this.runtime
    grace = max(0, runtime.spec.workers.termination_grace_period_seconds - STOP_SECONDS)
    redis = queue_key(runtime)
    return [
        secret(contract.ENV_DATABASE_URL, runtime_key(runtime)),
        *([secret(contract.ENV_REDIS_URL, redis)] if redis else []),
        *served_environment(this),
        plain("COMMONPLACE_RUNTIME_NAME", runtime_label(runtime)),
        plain("COMMONPLACE_WORKER_GRACE_SECONDS", str(grace)),
        *_provider(this),
    ]


def _provider(this: Installation) -> Iterator[dict[str, Any]]:
    chain = this.runtime.spec.provider
    yield plain(contract.ENV_PROVIDER, chain.name)
    if chain.model:
        yield plain(contract.ENV_MODEL, chain.model)
    if chain.fallbacks:
        yield plain(contract.ENV_PROVIDER_FALLBACKS, ",".join(_choice(fallback) for fallback in chain.fallbacks))
    told = set()
    for provider in (chain, *chain.fallbacks):
        # The runtime has one key and one address for each provider, so the first mention counts.
        if provider.name in told or provider.secret_ref is None or provider.name not in _KEY_VARIABLES:
            continue
        told.add(provider.name)
        key = provider_key(provider)
        assert key is not None  # noqa: S101 - there is a secret_ref
        yield secret(_KEY_VARIABLES[provider.name], key)
        if key.name in this.has_provider_url:
            yield secret(_URL_VARIABLES[provider.name], SecretKey(name=key.name, key=BASE_URL_KEY))


def provider_key(provider: ProviderSpec) -> SecretKey | None:
    """Where the provider's API key is; None where it needs none."""
    if provider.secret_ref is None:
        return None
    return SecretKey(name=provider.secret_ref.name, key=provider.secret_ref.key or DEFAULT_PROVIDER_KEY)


def _choice(provider: ProviderSpec) -> str:
    return f"{provider.name}:{provider.model}" if provider.model else provider.name
