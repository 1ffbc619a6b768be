"""What a question about a file costs at most, and what a line shows."""

from commonplace_runtime.domain.worker_reads import one_line, wanted_file


def test_no_path_makes_more_endings_than_a_store_can_compare() -> None:
    folders = [chr(ord("a") + place) for place in range(20)]
    deepest = ["/" + "/".join((folders * 26)[start : start + 509]) for start in range(20)]
    deep = ["/" + "/".join((folders * 4)[start : start + 60]) for start in range(20)]
    assert wanted_file(deepest, folders).endings == []
    assert len(wanted_file(deep, folders).endings) <= 200


def test_a_file_is_known_by_what_follows_its_repository() -> None:
    wanted = wanted_file(["/home/me/shop/src/cart.ts"], ["shop"])
    assert wanted.names == ["cart.ts"]
    assert "src/cart.ts" in wanted.paths
    assert wanted.endings == ["/shop/src/cart.ts"]


def test_a_line_hides_nothing_from_the_person_who_reads_it() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    assert one_line(f"Retry\u200b is{hidden} on\u2060", 100) == "Retry is on"
