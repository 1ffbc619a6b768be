from commonplace_runtime.ids import uuid7


def test_ids_sort_by_the_time_they_were_made_and_are_version_7() -> None:
    made = [uuid7() for _ in range(1000)]
    assert {(item.version, item.variant) for item in made} == {(7, "specified in RFC 4122")}
    assert len(set(made)) == len(made)
    stamps = [item.int >> 80 for item in made]
    assert stamps == sorted(stamps)
