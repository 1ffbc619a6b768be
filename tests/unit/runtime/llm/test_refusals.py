"""What a refusal means where words, codes and headers disagree."""

import pytest

from commonplace_runtime.llm.refusals import kind_of, refused, retry_after_seconds, told_by


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "max context length is 8192 tokens", "code": "context_length_exceeded"}, "splittable"),
        (400, {"message": "The input token count (9) exceeds the maximum"}, "splittable"),
        (400, {"message": "User location is not supported for the API use."}, "configuration"),
        (400, {"message": 'Unknown name "responseJsonSchema": Cannot find field.'}, "configuration"),
        (400, {"message": "anthropic/x is not a valid model ID"}, "configuration"),
        (400, {"message": "x", "details": [{"reason": "API_KEY_INVALID"}]}, "configuration"),
        (400, {"message": "filtered", "code": "content_filter"}, "refusal"),
        (400, {"message": "Generated JSON does not match", "code": "json_validate_failed"}, "invalid_output"),
        (403, {"message": "Key limit exceeded (monthly limit)"}, "configuration"),
        (403, {"message": "no", "status": "PERMISSION_DENIED"}, "configuration"),
        (403, {"message": "Request not allowed", "type": "forbidden"}, "configuration"),
        (403, {"message": "Forbidden"}, "poison"),
        (429, {"message": "You exceeded your current quota"}, "configuration"),
        (429, {"message": "Rate limit exceeded: free-models-per-min"}, "configuration"),
        (429, {"code": "rate_limit_exceeded", "message": "Please slow down"}, "throttled"),
        (500, {"message": "quota exceeded"}, "transient"),
        (301, {}, "configuration"),
        (418, {}, "poison"),
        (None, {"message": "Too many requests"}, "throttled"),
        (None, {"message": "who knows"}, "transient"),
    ],
)
def test_words_decide_where_the_status_leaves_it_open(status: int | None, error: object, kind: str) -> None:
    assert kind_of(status, told_by({"error": error})) == kind


def test_a_filters_403_is_the_events_fault_and_no_keys() -> None:
    failed = refused(403, None, {}, key_variable="KEY")
    assert (failed.kind, failed.reason) == ("poison", "the provider answered 403")


@pytest.mark.parametrize(
    "document",
    [
        {"detail": "Extra inputs are not permitted: response_format"},
        {"detail": [{"type": "extra_forbidden", "loc": ["body", 3, "response_format"], "msg": "Extra inputs"}]},
        {"object": "error", "message": {"detail": [{"type": "x", "loc": ["body", "response_format"], "msg": "no"}]}},
        {"error": {"type": "x", "detail": [7, {"loc": "body", "msg": "response_format"}]}},
    ],
)
def test_a_refusal_is_read_where_fastapi_and_mistral_write_it(document: object) -> None:
    assert told_by(document).says(("response_format",))


def test_what_fastapi_quotes_of_the_request_is_not_listened_to() -> None:
    document = {"detail": [{"type": "string_type", "loc": ["body"], "msg": "no", "input": "billing is overloaded"}]}
    assert kind_of(422, told_by(document)) == "poison"


def test_a_429_that_says_when_to_come_back_is_no_empty_account() -> None:
    document = {"error": {"message": "You exceeded your current quota"}}
    failed = refused(429, document, {"retry-after": "3"}, key_variable="KEY")
    assert (failed.kind, failed.retry_after_seconds) == ("throttled", 3.0)


def test_words_that_a_long_message_quotes_are_not_listened_to() -> None:
    quoted = "messages.0: invalid; " + "." * 300 + " billing is not supported, overloaded"
    assert kind_of(400, told_by({"error": {"message": quoted}})) == "poison"
    assert kind_of(400, told_by({"error": quoted})) == "poison"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17.0),
        ({"retry-after-ms": "1500", "retry-after": "17"}, 1.5),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:17 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 17.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_by_the_clock_that_wrote_it(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


@pytest.mark.parametrize(
    "document",
    [
        *(None, 3, [], "text", {}, {"error": None}, {"error": [1]}, {"error": {"details": 7, "code": True}}),
        *({"detail": 3}, {"detail": [1, {"loc": 3, "msg": []}]}, {"message": {"detail": None}}, {"message": [[]]}),
    ],
)
def test_any_document_can_be_asked_what_it_tells(document: object) -> None:
    assert told_by(document).names == ()


def test_a_reason_shows_identifiers_and_nothing_else() -> None:
    document = {"error": {"type": "invalid_request_error", "code": "a b <script>", "message": "secret words"}}
    failed = refused(400, document, {"request-id": "req 1"}, key_variable="KEY")
    assert failed.reason == "the provider answered 400 invalid_request_error"
    assert failed.request_id is None
