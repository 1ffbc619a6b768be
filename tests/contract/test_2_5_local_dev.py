"""Section 2.5: the local-dev mode, in which the peer admits nobody to any data. Ours does not exist."""

import pytest

from commonplace_runtime.settings import load_settings
from tests.contract.support import MISSING_KEY, Api, raw

URL = {"COMMONPLACE_DATABASE_URL": "postgresql://u@h/d"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]:8787"])
async def test_2_5_a_loopback_peer_without_a_key_is_401(api: Api, host: str) -> None:
    answer = await raw(api.url, f"GET /v1/usage\nHost: {host}")
    assert (answer.status, answer.json) == (401, MISSING_KEY)


@pytest.mark.parametrize(
    "variables",
    [{"CLAUDE_MEM_AUTH_MODE": "local-dev"}, {"CLAUDE_MEM_ALLOW_LOCAL_DEV_BYPASS": "1"}],
)
def test_2_5_asking_for_the_mode_is_refused_at_start(variables: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"local-dev|bypass"):
        load_settings({**URL, **variables})


async def test_2_5_info_reports_the_mode(api: Api) -> None:
    assert (await api.get("/v1/info"))["authMode"] == "api-key"
