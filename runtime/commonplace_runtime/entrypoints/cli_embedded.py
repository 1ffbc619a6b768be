"""`commonplace embedded postgres | redis`: a server of its own in a container, for trying out."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import cyclopts
from cyclopts import Parameter

from commonplace_runtime.domain.errors import Conflict, InvalidInput
from commonplace_runtime.domain.scram import SALT_BYTES, scram_verifier
from commonplace_runtime.embedded import EmbeddedServerFailed
from commonplace_runtime.embedded_pod import serve_postgres, serve_redis
from commonplace_runtime.entrypoints.terminal import settings_with

embedded = cyclopts.App(name="embedded", help="Postgres or Redis as a container's only process, for trying out.")

EVERYWHERE = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before
DataDir = Annotated[Path, Parameter(help="Where the data are kept: a volume.")]
Host = Annotated[str, Parameter(help="Address to listen on.")]


@embedded.command
def postgres(*, data_dir: DataDir, host: Host = EVERYWHERE, port: int = 5432) -> None:
    """
    Run PostgreSQL with the database `commonplace` until SIGTERM.

    The password of its superuser `postgres` is that of COMMONPLACE_EMBEDDED_PASSWORD, set anew at every start.
    """
    verifier = scram_verifier(_password(), secrets.token_bytes(SALT_BYTES))
    _exit_with(lambda: serve_postgres(data_dir.absolute(), host=host, port=port, verifier=verifier))


@embedded.command
def redis(*, data_dir: DataDir, host: Host = EVERYWHERE, port: int = 6379) -> None:
    """
    Run Redis, which writes down what it holds, until SIGTERM.

    Its password is that of COMMONPLACE_EMBEDDED_PASSWORD.
    """
    password = _password()
    _exit_with(lambda: serve_redis(data_dir.absolute(), host=host, port=port, password=password))


def _password() -> str:
    secret = settings_with("embedded_password").embedded_password
    if secret is None:  # settings_with has seen to it
        raise InvalidInput("no password")
    return secret.get_secret_value()


def _exit_with(serve: Callable[[], int]) -> NoReturn:
    try:
        status = serve()
    except EmbeddedServerFailed as error:
        raise Conflict(str(error)) from error
    except ImportError as error:
        raise Conflict(f"{error.name} is not installed: install commonplace[embedded]") from error
    raise SystemExit(status)
