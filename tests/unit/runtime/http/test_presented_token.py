import pytest
from starlette.datastructures import Headers

from commonplace_runtime.entrypoints.http.security import presented_token


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, None),
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "  bearer \t abc  "}, "abc"),
        ({"authorization": "BEARER abc", "x-api-key": "other"}, "abc"),
        ({"authorization": "Bearer   ", "x-api-key": "other"}, "other"),
        ({"authorization": "abc"}, None),
        ({"authorization": "abc", "x-api-key": " other "}, "other"),
        ({"authorization": "Basic abc"}, None),
        ({"authorization": "Bearerabc"}, None),
        ({"x-api-key": "   "}, None),
    ],
)
def test_where_the_key_is_read_from(headers: dict[str, str], token: str | None) -> None:
    assert presented_token(Headers(headers)) == token
