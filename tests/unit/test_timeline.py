"""The tree of checkpoints: growth, references, undo and redo, and its form as data."""

from __future__ import annotations

import copy
import json
import random
import time
from typing import Any

import pytest

from crkernel.checkpoint import Checkpoint, Cost, Key
from crkernel.errors import BadMagic, Corrupt, NotRestorable, UnknownCheckpoint, UserError
from crkernel.timeline import DuplicateKey, Timeline


def grow(*links: str, head: str | None = None) -> Timeline:
    """A timeline from words such as "2<1" (2 follows 1); "1" alone follows the one before."""
    timeline = Timeline()
    last: str | None = None
    for link in links:
        key, _, parent = link.partition("<")
        code = None if Key.parse(key).later or Key.parse(key).cell == 0 else f"code {key}"
        timeline.append(Checkpoint(key, parent or last, code, created=1000.0))
        last = key
    if head is not None:
        timeline.move(head)
    return timeline


@pytest.fixture
def tree() -> Timeline:
    """0-1-2-3-3+1-4 with a branch 2-6-7; 5 was a magic; the head is 7."""
    timeline = grow("0", "1", "2", "3", "3+1", "4", "6<2", "7")
    timeline.label("3", "good")
    return timeline


# -- keys and checkpoints ----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "7", "7+1", "r1.7", "r12.0", "r3.40+12"])
def test_keys_survive_taking_apart(text: str) -> None:
    assert str(Key.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "07", "-1", "7+", "7+0", "r0.7", "r.7", "7.1", "x", "7\n", "٣", "1" * 5000]
)
def test_anything_else_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="is not the key"):
        Key.parse(text)


def test_a_checkpoint_knows_its_cell_and_kind() -> None:
    assert Checkpoint("7", "6", "x", 0.0).cell == 7
    assert not Checkpoint("7", "6", "x", 0.0).is_later
    assert Checkpoint("r1.7+2", "r1.7", None, 0.0).cell == 7
    assert Checkpoint("r1.7+2", "r1.7", None, 0.0).is_later


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"key": "seven"}, "is not the key"),
        ({"status": "fine"}, "no such status"),
        ({"status": "died"}, "a reason is needed"),
        ({"key": "7+1", "parent": "6"}, "same cell"),
        ({"key": "7+1", "parent": None}, "same cell"),
        ({"key": "r1.7+1", "parent": "7"}, "same cell"),
    ],
)
def test_impossible_checkpoints_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Checkpoint(**{"key": "7", "parent": "6", "code": "x", "created": 0.0, **fields})


# -- growth ------------------------------------------------------------------------------------


def test_an_empty_timeline_has_no_head() -> None:
    timeline = Timeline()
    assert (len(timeline), timeline.roots) == (0, ())
    for ref in ("head", "root", "-1", "0", ""):
        with pytest.raises(UnknownCheckpoint, match="no checkpoint yet"):
            timeline.resolve(ref)
    with pytest.raises(UnknownCheckpoint):
        timeline.undo_target()


def test_append_moves_the_head(tree: Timeline) -> None:
    assert tree.head == "7"
    assert list(tree) == ["0", "1", "2", "3", "3+1", "4", "6", "7"]
    assert next(reversed(tree)) == "7"
    assert tree.children("2") == ("3", "6")
    assert tree.path("7") == ["0", "1", "2", "6", "7"]
    assert tree.roots == ("0",)
    assert "4" in tree
    assert "5" not in tree


def test_a_cell_that_ended_the_guest_does_not_become_the_head(tree: Timeline) -> None:
    tree.append(Checkpoint("8", "7", "process.exit()", 0.0, status="died", reason="it exited"))
    assert tree.head == "7"
    assert tree.children("7") == ("8",)
    with pytest.raises(UserError, match="nothing to redo"):
        tree.redo_target()


def test_bugs_of_the_caller_are_value_errors(tree: Timeline) -> None:
    with pytest.raises(DuplicateKey):
        tree.append(Checkpoint("7", "6", "x", 0.0))
    with pytest.raises(ValueError, match="not known"):
        tree.append(Checkpoint("9", "8", "x", 0.0))
    with pytest.raises(ValueError, match="for good"):
        tree.amend("7", parent="1")
    assert len(tree) == 8


def test_amend_replaces_what_became_known_later(tree: Timeline) -> None:
    cost = Cost(0.015, 0.009, 3_000_000, 4096)
    assert tree.amend("7", cost=cost) is tree.get("7")
    assert tree.get("7").cost == cost
    assert tree.get("7").code == "code 7"


def test_later_keys_are_the_next_free_ones(tree: Timeline) -> None:
    assert tree.later_key("7") == "7+1"
    assert tree.later_key("3") == tree.later_key("3+1") == "3+2"
    tree.append(Checkpoint("3+2", "3", None, 0.0))
    assert tree.later_key("3") == "3+3"
    tree.append(Checkpoint("3+9", "3", None, 0.0))
    tree.append(Checkpoint("3+4", "3", None, 0.0))
    assert tree.later_key("3") == "3+10"
    with pytest.raises(UnknownCheckpoint):
        tree.later_key("5")


def test_a_label_moves_when_it_is_used_again(tree: Timeline) -> None:
    tree.label("4", "good")
    assert tree.resolve("good") == "4"
    assert dict(tree.labels) == {"good": "4"}


@pytest.mark.parametrize(
    "name",
    ["head", "root", "before", "7", "r1.7", "-2", "", "a b", "a..b", "a.", "ä", "+x", "x+1", "a\n"],
)
def test_labels_that_could_mean_something_else_are_refused(tree: Timeline, name: str) -> None:
    with pytest.raises(BadMagic, match="label"):
        tree.label("4", name)


# -- references --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "key"),
    [
        ("7", "7"),
        (" 3+1 ", "3+1"),
        ("good", "3"),
        ("head", "7"),
        ("root", "0"),
        ("-1", "6"),
        ("-2", "2"),
        ("-4", "0"),
        ("before 6", "2"),
        ("before  4", "3+1"),
        ("before 3+1", "3"),
        ("before good", "2"),
        ("before head", "6"),
        ("before -1", "2"),
        ("before before 7", "2"),
    ],
)
def test_references(tree: Timeline, ref: str, key: str) -> None:
    assert tree.resolve(ref) == key


def test_counting_back_skips_later_states(tree: Timeline) -> None:
    tree.move("4")
    assert tree.resolve("-1") == "3"
    tree.move("3+1")
    assert tree.resolve("-1") == "2"


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("5", "no checkpoint '5'; did you mean 4 or 6?"),
        ("99", "did you mean 7 or 6?"),
        ("3+7", "did you mean 3 or 3+1?"),
        ("god", "did you mean good?"),
        ("HEAD", "did you mean head?"),
        ("rot", "did you mean root?"),
        ("-5", "too far back: 4 cells lead to the head 7"),
        ("-0", "no checkpoint '-0'"),
        ("before", "no checkpoint 'before'"),
        ("before 5", "did you mean 4 or 6?"),
        ("", "no checkpoint was named"),
        ("-" + "9" * 6000, "no checkpoint '-999"),
        ("9" * 6000, "no checkpoint '999"),
    ],
)
def test_unknown_references_say_what_there_is(tree: Timeline, ref: str, says: str) -> None:
    with pytest.raises(UnknownCheckpoint) as caught:
        tree.resolve(ref)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 120
    assert caught.value.hint
    if "far" not in says and ref:
        assert "checkpoints 0 to 7 exist" in caught.value.hint


def test_nothing_comes_before_a_root(tree: Timeline) -> None:
    with pytest.raises(UserError, match="nothing comes before 0") as caught:
        tree.resolve("before root")
    assert caught.value.hint == "%rewind 0 goes there"


def test_what_cannot_be_restored_names_what_can(tree: Timeline) -> None:
    assert tree.restorable("7") is tree.get("7")
    tree.amend("7", reason="an io_uring is open")
    tree.amend("6", reason="a terminal is open")
    with pytest.raises(NotRestorable, match="an io_uring is open") as caught:
        tree.restorable("7")
    assert "%rewind 2" in (caught.value.hint or "")
    assert tree.nearest_restorable("7") == "2"
    for key in ("0", "1", "2"):
        tree.amend(key, reason="no CRIU")
    with pytest.raises(NotRestorable) as caught:
        tree.restorable("7")
    assert "%reset" in (caught.value.hint or "")


# -- undo, redo, ranges ------------------------------------------------------------------------


def test_undo_goes_to_the_state_before_a_cell(tree: Timeline) -> None:
    assert [tree.undo_target(n) for n in (1, 2, 3, 4)] == ["6", "2", "1", "0"]
    tree.move("4")
    assert [tree.undo_target(n) for n in (1, 2, 3)] == ["3+1", "2", "1"]
    tree.move("3+1")
    assert tree.undo_target() == "2"


def test_undo_says_how_far_it_can_go(tree: Timeline) -> None:
    for n in (0, -1, 5):
        with pytest.raises(UserError, match="%undo can go 1 to 4 here"):
            tree.undo_target(n)
    tree.move("0")
    with pytest.raises(UserError, match="nothing to undo"):
        tree.undo_target()


def test_redo_goes_back_the_way_the_head_came(tree: Timeline) -> None:
    with pytest.raises(UserError, match="nothing to redo"):
        tree.redo_target()
    tree.move(tree.undo_target(3))
    assert (tree.head, tree.redo_target(), tree.redo_target(3)) == ("1", "2", "7")
    with pytest.raises(UserError, match="%redo can go 1 to 3 here"):
        tree.redo_target(4)
    tree.move("4")
    tree.move("1")
    assert [tree.redo_target(n) for n in (1, 2, 3)] == ["2", "3+1", "4"]


def test_redo_after_undo_at_a_later_state() -> None:
    timeline = grow("0", "1", "2", "2+1")
    timeline.move(timeline.undo_target())
    assert timeline.head == "1"
    assert timeline.redo_target() == "2+1"
    timeline.amend("2+1", reason="a terminal is open")
    assert timeline.redo_target() == "2"


def test_undo_then_redo_is_where_one_was_on_random_trees() -> None:
    rng = random.Random(1)
    for _ in range(50):
        timeline = random_timeline(rng, 30)
        head = timeline.head
        cells = sum(not timeline.get(key).is_later for key in timeline.path(head))
        for n in range(1, cells):
            timeline.move(timeline.undo_target(n))
            assert timeline.redo_target(n) == head
            timeline.move(head)


def test_between_gives_the_cells_of_a_path(tree: Timeline) -> None:
    tree.move("4")
    assert [c.key for c in tree.between("1", "4")] == ["1", "2", "3", "4"]
    assert [c.key for c in tree.between("3+1", "4")] == ["4"]
    assert [c.key for c in tree.between("0", "2")] == ["1", "2"]
    assert [c.key for c in tree.between("6", "6")] == ["6"]
    for first, last in (("3", "7"), ("7", "4")):
        with pytest.raises(UserError, match=f"{first} does not lead to {last}"):
            tree.between(first, last)
    with pytest.raises(UserError, match="3 comes before 4") as caught:
        tree.between("4", "3")
    assert caught.value.hint == "turn it round: 3..4"
    with pytest.raises(UserError, match="no cell ran"):
        tree.between("0", "0")
    with pytest.raises(UnknownCheckpoint):
        tree.between("5", "7")


# -- lives of the kernel, data -----------------------------------------------------------------


def test_adopt_renames_what_an_earlier_life_left(tree: Timeline) -> None:
    tree.move("6")
    renamed = tree.adopt()
    assert renamed["3+1"] == "r1.3+1"
    assert (tree.head, dict(tree.labels)) == ("r1.6", {"good": "r1.3"})
    assert tree.redo_target() == "r1.7"
    assert tree.later_key("r1.3") == "r1.3+2"
    tree.append(Checkpoint("0", None, None, 0.0))
    tree.append(Checkpoint("1", "0", "x", 0.0))
    assert tree.roots == ("r1.0", "0")
    assert tree.resolve("root") == "0"
    assert tree.resolve("before r1.7") == "r1.6"
    with pytest.raises(UnknownCheckpoint, match=r"did you mean 1 or 0 or r1\.7\?"):
        tree.resolve("7")
    assert set(tree.adopt()) == {"0", "1"}
    assert tree.head == "r2.1"
    with pytest.raises(ValueError, match="in use"):
        tree.adopt(2)


def random_timeline(rng: random.Random, size: int) -> Timeline:
    timeline = Timeline()
    timeline.append(Checkpoint("0", None, None, 0.0))
    for cell in range(1, size):
        timeline.move(rng.choice(list(timeline)) if rng.random() < 0.2 else timeline.head)
        if rng.random() < 0.2:
            key = timeline.later_key(timeline.head)
            timeline.append(Checkpoint(key, timeline.head, None, float(cell)))
        cost = Cost(rng.random(), rng.random(), cell, 0) if rng.random() < 0.8 else None
        timeline.append(
            Checkpoint(str(cell), timeline.head, f"c{cell}", float(cell), rng.random(), cost=cost)
        )
        if rng.random() < 0.1:
            timeline.label(timeline.head, f"label-{rng.randrange(5)}")
    return timeline


def test_data_gives_an_equal_timeline_on_random_trees() -> None:
    rng = random.Random(2)
    for _ in range(30):
        timeline = random_timeline(rng, 40)
        if rng.random() < 0.5:
            timeline.adopt()
        data = json.loads(json.dumps(timeline.to_dict()))
        again = Timeline.from_dict(data)
        assert again.to_dict() == timeline.to_dict()
        for key in timeline:
            assert again.path(key) == timeline.path(key)
            assert again.children(key) == timeline.children(key)
            assert again.later_key(key) == timeline.later_key(key)
    assert Timeline.from_dict(Timeline().to_dict()).to_dict() == Timeline().to_dict()


def test_data_from_outside_is_checked(tree: Timeline) -> None:
    tree.amend("7", cost=Cost(0.1, 0.1, 1, 1))
    good = tree.to_dict()

    def spoil(*path: Any, value: Any) -> dict[str, Any]:
        data = copy.deepcopy(good)
        place: Any = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return data

    spoiled: list[object] = [
        None,
        [],
        {},
        spoil("format", value=2),
        spoil("more", value=1),
        spoil("head", value="5"),
        spoil("head", value=[]),
        spoil("head", value=None),
        spoil("labels", value=[]),
        spoil("labels", "good", value="5"),
        spoil("labels", "good", value=[]),
        spoil("labels", "head", value="3"),
        spoil("checkpoints", value={}),
        spoil("checkpoints", value=[]),
        spoil("checkpoints", 0, value=None),
        spoil("checkpoints", 1, "key", value="0"),
        spoil("checkpoints", 1, "key", value=1),
        spoil("checkpoints", 1, "parent", value="4"),
        spoil("checkpoints", 1, "code", value=1),
        spoil("checkpoints", 1, "created", value=float("nan")),
        spoil("checkpoints", 1, "created", value="1"),
        spoil("checkpoints", 1, "duration", value=-1),
        spoil("checkpoints", 1, "duration", value=True),
        spoil("checkpoints", 1, "status", value="fine"),
        spoil("checkpoints", 1, "status", value="died"),
        spoil("checkpoints", 1, "reason", value=0),
        spoil("checkpoints", 1, "extra", value=0),
        spoil("checkpoints", 7, "cost", value=1),
        spoil("checkpoints", 7, "cost", value={}),
        spoil("checkpoints", 7, "cost", "memory", value=1.5),
        spoil("checkpoints", 7, "cost", "dump", value=float("inf")),
    ]
    for data in spoiled:
        with pytest.raises(Corrupt, match="the record of the timeline is damaged"):
            Timeline.from_dict(data)


def test_the_time_per_cell_does_not_grow() -> None:
    """A generous bound: 20,000 cells with all that happens for each take a fraction of this."""
    timeline = grow("0")
    start = time.process_time()
    for cell in range(1, 20_001):
        timeline.append(Checkpoint(str(cell), timeline.head, "x", 0.0))
        timeline.move(timeline.head)
        timeline.amend(timeline.head, duration=0.1)
        timeline.label(timeline.head, "latest")
        timeline.append(Checkpoint(timeline.later_key(timeline.head), timeline.head, None, 0.0))
    assert time.process_time() - start < 5
    assert len(timeline.path(timeline.head)) == 40_001
