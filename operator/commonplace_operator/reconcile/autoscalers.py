"""The autoscaler object that a runtime's mode asks for, as this cluster takes it."""

from dataclasses import dataclass
from typing import Any, Final

from commonplace_operator import errors
from commonplace_operator.children.autoscaling import worker_hpa, worker_scaled_object
from commonplace_operator.reconcile.context import Context
from commonplace_operator.resources import names
from commonplace_operator.resources.names import Kind
from commonplace_operator.resources.objects import MemoryRuntime

_NO_ZERO: Final = (
    "this cluster's HorizontalPodAutoscaler takes no minReplicas 0 (feature gate HPAScaleToZero), so one worker stays"
)


@dataclass(frozen=True, kw_only=True)
class WantedAutoscaler:
    """manifest: the object to put, None for a mode without one. unwanted: kinds to drop. note: what is not as asked."""

    manifest: dict[str, Any] | None
    unwanted: tuple[Kind, ...]
    note: str = ""


async def wanted_autoscaler(context: Context, runtime: MemoryRuntime) -> WantedAutoscaler:
    """What mode HPA or KEDA renders; the caller puts it beside the other children, named as the workers are."""
    autoscaling = runtime.spec.workers.autoscaling
    match autoscaling.mode:
        case "HPA":
            wants_zero = autoscaling.min_replicas == 0
            takes_zero = wants_zero and await _takes_zero(context, runtime)
            return WantedAutoscaler(
                manifest=worker_hpa(runtime, to_zero=takes_zero),
                unwanted=(names.SCALED_OBJECT,),
                note=_NO_ZERO if wants_zero and not takes_zero else "",
            )
        case "KEDA":
            # The schema requires the address with this mode.
            manifest = worker_scaled_object(runtime, autoscaling.prometheus_address or "")
            return WantedAutoscaler(manifest=manifest, unwanted=(names.AUTOSCALER,))
        case "Operator" | "Manual":
            return WantedAutoscaler(manifest=None, unwanted=(names.AUTOSCALER, names.SCALED_OBJECT))


async def _takes_zero(context: Context, runtime: MemoryRuntime) -> bool:
    """Asked of the API server itself: no version number tells, for it is a feature gate."""
    try:
        await context.cluster.apply(names.AUTOSCALER, worker_hpa(runtime, to_zero=True), dry_run=True)
    except errors.Refused:
        return False
    return True
