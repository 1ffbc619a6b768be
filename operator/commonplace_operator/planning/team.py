"""What a MemoryTeam asks of the database, and who may ask."""

from collections.abc import Mapping
from typing import Final

from commonplace_operator.errors import SpecError
from commonplace_operator.resources import names
from commonplace_operator.resources.durations import parse_duration
from commonplace_operator.resources.objects import MemoryRuntime, MemoryTeam
from commonplace_operator.resources.rows import ProjectRow, TeamRow
from commonplace_runtime import contract

NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"


def is_permitted(team: MemoryTeam, runtime: MemoryRuntime, namespace_labels: Mapping[str, str]) -> bool:
    """Whether the runtime's owner lets a team live in `team`'s namespace; its own namespace always may."""
    allowed = runtime.spec.allowed_teams
    if team.namespace == runtime.namespace or allowed.from_ == "All":
        return True
    if allowed.from_ == "Same" or allowed.selector is None:
        return False
    return allowed.selector.matches({NAMESPACE_NAME_LABEL: team.namespace, **namespace_labels})


def wanted_slug(team: MemoryTeam) -> str:
    """The slug asked for; the default is `<namespace>.<name>`."""
    return team.spec.slug or f"{team.namespace}.{team.name}"


def slug_fault(team: MemoryTeam, runtime: MemoryRuntime) -> str | None:
    """
    Why this slug may not be asked for, None when it may.

    `<namespace>.<name>` is what a team of that namespace is called by default, so it is kept for that namespace; the
    platform's owner, who writes beside the runtime, may name teams freely.
    """
    slug = wanted_slug(team)
    if "." not in slug or team.namespace == runtime.namespace or slug.startswith(f"{team.namespace}."):
        return None
    return f"spec.slug: {slug} has a dot, so it must begin with {team.namespace}. (the team's own namespace)"


def may_adopt(team: MemoryTeam, runtime: MemoryRuntime) -> bool:
    """
    Whether the `adopt` annotation counts.

    A slug `<own namespace>.…` is this namespace's by construction. Any other slug may hold another tenant's
    memories, so only a team beside its runtime, where the platform's owner writes, may take it over.
    """
    if team.metadata.annotations.get(names.ANNOTATION_ADOPT) != "true":
        return False
    return team.namespace == runtime.namespace or wanted_slug(team).startswith(f"{team.namespace}.")


def team_row(team: MemoryTeam, *, new_ids: tuple[str, ...], adopt: bool) -> TeamRow:
    """
    The row that `team` asks for; `new_ids` has one id for the team and one for each project with `default`.

    Raises SpecError for a retention that is no positive duration.
    """
    wanted = {project.name: project.display_name for project in team.spec.projects}
    projects = {contract.DEFAULT_PROJECT: wanted.get(contract.DEFAULT_PROJECT)} | wanted
    return TeamRow(
        id=new_ids[0],
        slug=wanted_slug(team),
        name=team.spec.display_name or team.name,
        policies=_policies(team),
        projects=tuple(
            ProjectRow(id=id_, name=name, display_name=display)
            for id_, (name, display) in zip(new_ids[1:], projects.items(), strict=True)
        ),
        members=tuple((member.actor, member.role) for member in team.spec.members),
        adopt=adopt,
    )


def ids_needed(team: MemoryTeam) -> int:
    """How many new ids `team_row` wants."""
    return 1 + len({contract.DEFAULT_PROJECT, *(project.name for project in team.spec.projects)})


def _policies(team: MemoryTeam) -> dict[str, str | int]:
    policies = team.spec.policies
    found: dict[str, str | int] = {"namespace": team.namespace, "generationMode": policies.generation.mode}
    if policies.generation.window_seconds is not None:
        found["windowSeconds"] = policies.generation.window_seconds
    if policies.default_visibility is not None:
        found["defaultVisibility"] = policies.default_visibility
    if policies.retention.events is not None:
        seconds = int(parse_duration(policies.retention.events).total_seconds())
        if seconds <= 0:
            raise SpecError(f"spec.policies.retention.events: {policies.retention.events!r} is not positive")
        found["eventRetentionSeconds"] = seconds
    return found
