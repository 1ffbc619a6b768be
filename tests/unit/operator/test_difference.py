"""When nothing is written: an object that already says what would be applied."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commonplace_operator.children.difference import says_all
from commonplace_operator.reconcile.children import _marked, _with_claims_of
from commonplace_operator.resources.names import ANNOTATION_CONTENT_HASH
from tests.unit.operator.managed import EXAMPLES, TRIAL, child, children

KEYS = st.sampled_from(["a", "b", "name", "spec", "requests", "ports", "value"])
SCALARS = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["", "x", "1", "1000m", "1.0"]))


def named_list(entry: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.dictionaries(st.sampled_from(["one", "two", "three"]), st.dictionaries(KEYS, entry, max_size=2)).map(
        lambda found: [{**fields, "name": name} for name, fields in found.items()]
    )


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.dictionaries(KEYS, inner, max_size=4), st.lists(inner, max_size=3), named_list(inner)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)


def applied(live: Any, wanted: Any) -> Any:
    """What an apply makes of `live`: maps merge, lists of named entries merge by name, all else is replaced."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return {**live, **{key: applied(live.get(key), value) for key, value in wanted.items()}}
    if isinstance(wanted, list) and isinstance(live, list) and wanted:
        both = [*live, *wanted]
        if all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in both):
            known = {entry["name"]: entry for entry in live}
            merged = {**known, **{entry["name"]: applied(known.get(entry["name"]), entry) for entry in wanted}}
            return list(merged.values())
    return copy.deepcopy(wanted)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [at] if not isinstance(value, dict | list) else []
    return found + [path for key, part in inner for path in paths(part, (*at, key))]


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    result = copy.deepcopy(value)
    place = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "something else"
    return result


@given(live=OBJECTS, wanted=OBJECTS)
def test_what_was_applied_is_said_whatever_others_added(live: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert says_all(applied(live, wanted), wanted)


@given(wanted=OBJECTS, data=st.data())
def test_any_field_that_drifted_is_noticed(wanted: dict[str, Any], data: st.DataObject) -> None:
    drifted = paths(wanted)
    if drifted:
        path = data.draw(st.sampled_from(drifted))
        assert not says_all(changed(wanted, path), wanted)


@given(wanted=OBJECTS, data=st.data())
def test_a_field_that_is_left_out_later_is_noticed_by_the_hash(wanted: dict[str, Any], data: st.DataObject) -> None:
    before = {"metadata": {"name": "x"}, "spec": wanted}
    live = _marked(before)
    assert says_all(live, _marked(before))
    if wanted:
        gone = data.draw(st.sampled_from(sorted(wanted)))
        after = {"metadata": {"name": "x"}, "spec": {key: value for key, value in wanted.items() if key != gone}}
        assert not says_all(live, _marked(after))


@pytest.mark.parametrize(
    ("live", "wanted", "is_said"),
    [
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": "1000m"}}, True),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"memory": "1024Mi"}}, True),
        ({"requests": {"cpu": "1"}}, {"requests": {"cpu": 1}}, True),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "1"}}, False),
        ({"value": "60.0"}, {"value": "60"}, False),
        ({"port": 1}, {"port": True}, False),
        ({}, {"limits": {}}, True),
        ({}, {"env": []}, True),
        ({}, {"value": ""}, False),
        ({"ports": [{"port": 53, "protocol": "TCP"}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}, False),
        ({"args": ["a", "b", "c"]}, {"args": ["a", "b"]}, False),
        ({"args": ["b", "a"]}, {"args": ["a", "b"]}, False),
        ({"env": [{"name": "theirs"}, {"name": "ours"}]}, {"env": [{"name": "ours"}]}, True),
        ({"env": [{"name": "theirs"}]}, {"env": [{"name": "ours"}]}, False),
        ({"spec": None}, {"spec": {"a": 1}}, False),
    ],
)
def test_differences_that_count_and_that_do_not(live: Any, wanted: Any, is_said: bool) -> None:
    assert says_all(live, wanted) is is_said


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_hash_of_a_child_does_not_depend_on_chance(example: Any) -> None:
    hashes = [
        [_marked(manifest)["metadata"]["annotations"][ANNOTATION_CONTENT_HASH] for manifest in children(example)]
        for _ in range(2)
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(hashes[0])


def test_a_volume_that_exists_stays_as_it_is() -> None:
    wanted = child(TRIAL, "StatefulSet", "-postgres")
    live = copy.deepcopy(dict(wanted))
    live["spec"]["volumeClaimTemplates"][0] |= {"kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}
    live["spec"]["volumeClaimTemplates"][0]["spec"]["volumeMode"] = "Filesystem"
    assert _with_claims_of(live, wanted) == wanted

    bigger = child(TRIAL.changed(database={"embedded": True, "storage": {"size": "99Gi"}}), "StatefulSet", "-postgres")
    claims = _with_claims_of(live, bigger)["spec"]["volumeClaimTemplates"]
    assert claims == live["spec"]["volumeClaimTemplates"]
