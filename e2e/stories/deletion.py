"""A team is deleted: its keys are refused, nothing of it stays in the cluster, others go on."""

from typing import Final

from e2e.report import CheckFailed
from e2e.site import Site

REFUSED: Final = "deletion: the keys of a deleted team are refused"
GONE: Final = "deletion: key, quota and Secret go after their team"
OTHERS: Final = "deletion: another team's key still works"
ROWS: Final = (REFUSED, GONE, OTHERS)
_TEAM: Final = "leaving"


def tell(site: Site) -> None:
    """Make a team with a key and a limit, and delete the team."""
    report = site.report
    api = {"apiVersion": "commonplace.dev/v1alpha1"}
    reference = {"teamRef": {"name": _TEAM}}
    with report.step("delete a team with its key and quota"):
        site.apply(
            api | {"kind": "MemoryTeam", "metadata": {"name": _TEAM}, "spec": {"runtimeRef": {"name": "main"}}},
            api | {"kind": "ApiKey", "metadata": {"name": _TEAM}, "spec": reference | {"scopes": ["memories:read"]}},
            api | {"kind": "Quota", "metadata": {"name": _TEAM}, "spec": reference | {"hard": {"apiKeys": 5}}},
        )
        for kind in ("memoryteam", "apikey", "memoryquota"):
            site.wait(f"{kind}/{_TEAM}", "condition=Ready", seconds=60)
        token = site.secret(_TEAM)["token"]
        if site.call("GET", "/v1/connect", token=token).status_code != 200:
            raise CheckFailed("the new key does not work")
        site.kubectl("delete", "memoryteam", _TEAM, "--timeout=60s")
        with report.check(REFUSED) as row:
            status = site.call("GET", "/v1/connect", token=token).status_code
            if status not in {401, 403}:
                raise CheckFailed(f"HTTP {status}")
            row.seen = f"HTTP {status}"
        with report.check(GONE) as row:
            site.kubectl("delete", "apikey,memoryquota", _TEAM, "--timeout=60s")
            site.until(lambda: site.get("secret", _TEAM) is None, "the Secret outlived its ApiKey", seconds=60)
            row.seen = "objects, Secret and finalizers are gone"
        with report.check(OTHERS) as row:
            status = site.call("GET", "/v1/connect").status_code
            if status != 200:
                raise CheckFailed(f"HTTP {status}")
            row.seen = f"HTTP {status}"
