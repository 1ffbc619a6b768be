"""The commands of docs/howto/backup.md: dump, lose the volume, restore; memories and tokens are as they were."""

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import httpx2

from e2e.report import CheckFailed
from e2e.site import Site
from e2e.stories.install import PLANTED, QUESTION

DUMPED: Final = "backup: a dump of the embedded database"
RESTORED: Final = "backup: after the volume is lost, a restore brings memories and keys back"
ROWS: Final = (DUMPED, RESTORED)

_AS_OWNER: Final = 'PGPASSWORD="$COMMONPLACE_EMBEDDED_PASSWORD"'
_LOGIN: Final = "--host 127.0.0.1 --username postgres --dbname commonplace"
_DUMP: Final = f"{_AS_OWNER} pg_dump {_LOGIN} --format custom"
_RESTORE: Final = f"{_AS_OWNER} pg_restore {_LOGIN} --clean --if-exists --single-transaction"


def tell(site: Site) -> None:
    """Dump, destroy, restore, recall."""
    report = site.report
    token = site.secret()["token"]
    with tempfile.TemporaryDirectory(prefix="commonplace-backup-") as directory:
        dump = Path(directory, "commonplace.dump")
        with report.step("dump the database"), report.check(DUMPED) as row:
            _exec(site, _DUMP, stdout=dump)
            row.seen = f"{dump.stat().st_size / 1024:.0f} KiB"
        with report.step("lose the volume, restore the dump"), report.check(RESTORED) as row:
            site.kubectl("delete", "memoryruntime", "main", "--timeout=90s")
            site.kubectl("delete", "persistentvolumeclaim", "data-main-postgres-0", "--timeout=120s", seconds=150)
            site.apply_samples()
            site.wait("memoryruntime/main", "condition=Ready")
            site.reach_api()
            # The key's condition is that of the old database; its token works once its row is in the new one.
            site.until(lambda: _is_known(site, token), "the key was not put into the new database", seconds=90, every=1)
            if any(PLANTED in item["content"] for item in site.search(QUESTION, limit=50)):
                raise CheckFailed("the new volume has the old memories: nothing was lost")
            _exec(site, _RESTORE, stdin=dump)
            site.kubectl("rollout", "restart", "deployment/main-api", "deployment/main-worker")
            for name in ("main-api", "main-worker"):
                site.kubectl("rollout", "status", f"deployment/{name}", "--timeout=180s", seconds=200)
            found = site.search(QUESTION, limit=50, token=token)
            hit = next((number for number, item in enumerate(found, 1) if PLANTED in item["content"]), None)
            if hit is None:
                raise CheckFailed(f"the planted fact is not among {len(found)} memories")
            row.seen = f"recalled at rank {hit} with the token from before"


def _is_known(site: Site, token: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return site.call("GET", "/v1/connect", token=token).status_code == 200
    return False


def _exec(site: Site, script: str, *, stdin: Path | None = None, stdout: Path | None = None) -> None:
    command = [str(site.cluster.kubectl), "--namespace", "memory", "exec", "main-postgres-0"]
    command += [*(["--stdin"] if stdin else []), "--", "sh", "-c", script]
    with (
        (stdin or Path("/dev/null")).open("rb") as source,
        (stdout or Path("/dev/null")).open("wb") as sink,
    ):
        done = subprocess.run(
            command,
            env=dict(site.cluster.environment()),
            stdin=source,
            stdout=sink,
            stderr=subprocess.PIPE,
            timeout=180,
            check=False,
        )
    if done.returncode != 0:
        raise CheckFailed(f"{script.split()[1]}: {done.stderr.decode(errors='replace').strip()[-400:]}")
