"""`python -m commonplace_operator`: read the environment, open the adapters, run."""

import asyncio
import os
import sys

import aiohttp
import structlog
from kubernetes.aio import client as kubernetes_client

from commonplace_operator import errors
from commonplace_operator.cluster import KubernetesCluster, load_configuration, open_session
from commonplace_operator.composition import Operator, build
from commonplace_operator.handlers.watch import kopf_connections
from commonplace_operator.observability import configure_logging
from commonplace_operator.registry import PostgresRegistries
from commonplace_operator.settings import Settings, SettingsError


async def run(settings: Settings, configuration: kubernetes_client.Configuration) -> None:
    """Serve until told to stop, over the real adapters."""
    cluster = KubernetesCluster(configuration, timeout=settings.cluster_timeout_seconds)
    lease_cluster = KubernetesCluster(configuration, timeout=settings.renew_deadline_seconds)
    registries = PostgresRegistries(
        connect_timeout=settings.database_connect_timeout_seconds,
        statement_timeout=settings.database_statement_timeout_seconds,
    )
    try:
        operator = build(settings, cluster=cluster, registries=registries, lease_cluster=lease_cluster)
        await serve(operator, settings, configuration)
    finally:
        await cluster.close()
        await lease_cluster.close()


async def serve(operator: Operator, settings: Settings, configuration: kubernetes_client.Configuration) -> None:
    """Run an operator that was put together, watching with the credentials of `configuration`."""

    connections = kopf_connections(settings.watch_namespaces)

    async def session() -> aiohttp.ClientSession:
        # Read anew on each log-in: a service account's token on disk is replaced while we run.
        return await open_session(await load_configuration(os.environ), connections=connections)

    await operator.run(server=configuration.host, open_session=session)


async def main() -> int:
    """
    Exit status: 0 after a signal, 78 (EX_CONFIG) for an unusable environment, 1 for what is ours to fix.

    A leader that leads no more ends at once with 75 (EX_TEMPFAIL): to be started again, as a standby.
    """
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.stderr.write(f"commonplace-operator: bad settings\n{error}\n")
        return os.EX_CONFIG
    configure_logging(style=settings.log_format, level=settings.log_level)
    log = structlog.get_logger("commonplace_operator")
    try:
        configuration = await load_configuration(os.environ)
    except errors.Refused as error:
        log.critical("no_cluster_configuration", detail=str(error))
        return os.EX_CONFIG
    try:
        await run(settings, configuration)
    except OSError as error:
        log.critical("operator_cannot_start", detail=str(error))
        return os.EX_OSERR
    except errors.LeaseLost as error:
        log.critical("leadership_lost", detail=str(error))
        # Not by returning: asyncio would wait for whatever hangs, and keep a former leader alive.
        os._exit(os.EX_TEMPFAIL)
    log.info("operator_stopped")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
