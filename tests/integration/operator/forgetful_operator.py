"""The real operator with a queue that keeps two keys: as a standby it forgets what else it sees."""

import asyncio
import os
import sys

from commonplace_operator.__main__ import serve
from commonplace_operator.cluster import KubernetesCluster, load_configuration
from commonplace_operator.composition import build
from commonplace_operator.observability import configure_logging
from commonplace_operator.registry import PostgresRegistries
from commonplace_operator.settings import Settings


async def main() -> None:
    settings = Settings.from_environment()
    configure_logging(style="json", level="debug")
    configuration = await load_configuration(os.environ)
    operator = build(
        settings,
        cluster=KubernetesCluster(configuration, timeout=15),
        registries=PostgresRegistries(connect_timeout=5, statement_timeout=10),
    )
    operator.queue._limit = 2
    await serve(operator, settings, configuration)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
