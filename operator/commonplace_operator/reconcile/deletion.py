"""When an object cannot go yet, and when it goes all the same."""

from commonplace_operator.engine.queue import Result
from commonplace_operator.planning.status import AnyObject, kept_fields, positive, status_of
from commonplace_operator.reconcile.context import Context, release_finalizer, write_status
from commonplace_operator.resources import names
from commonplace_operator.resources.reasons import ConditionType, EventReason, Reason


async def block_deletion(context: Context, wanted: AnyObject, reason: Reason, why: str) -> Result:
    """Say why the object waits and how to let it go without us; try again later."""
    message = (
        f"{why}. Retrying; to let the object go and leave its rows behind: kubectl annotate {wanted.kind.plural} "
        f"{wanted.name} -n {wanted.namespace} {names.ANNOTATION_ABANDON}={wanted.name}"
    )
    others = [c.condition for c in wanted.conditions if c.condition.type != ConditionType.DELETION_BLOCKED]
    blocked = positive(ConditionType.DELETION_BLOCKED, reason, message)
    status = status_of(wanted, conditions=(*others, blocked), now=context.clock(), fields=kept_fields(wanted))
    await write_status(context, wanted, status)
    return Result(retry=True)


def tell_rows_left(context: Context, wanted: AnyObject, team: str) -> None:
    """Nobody can be asked to release the rows any more: say so, in case they are still there."""
    note = (
        f"MemoryTeam {wanted.namespace}/{team} or its MemoryRuntime is gone and its database is not known: rows of "
        "this object that were not released with the team stay"
    )
    context.tell(wanted, "Warning", EventReason.ROWS_LEFT, note, action="Release")


async def abandon(context: Context, wanted: AnyObject) -> Result:
    """The author took the documented escape."""
    note = "Released by annotation: its rows and keys in the database were left as they are"
    context.tell(wanted, "Warning", EventReason.ABANDONED, note, action="Release")
    await release_finalizer(context, wanted)
    return Result()
