"""Drawn timelines: what stands where, in text and in HTML."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser

import pytest

from crkernel import render
from crkernel.checkpoint import Checkpoint, Cost
from crkernel.timeline import Timeline

NOW = 10_000.0


def add(timeline: Timeline, key: str, parent: str | None, code: str | None = None) -> None:
    timeline.append(Checkpoint(key, parent, code, NOW - 60, 0.003))


def chain(length: int) -> Timeline:
    timeline = Timeline()
    add(timeline, "0", None)
    for cell in range(1, length):
        add(timeline, str(cell), str(cell - 1), f"x = {cell}")
    return timeline


@pytest.fixture
def tree() -> Timeline:
    """0-1-2-3-3+1-4 with branches 3-6-7 and 2-8; the head is 7."""
    timeline = chain(4)
    add(timeline, "3+1", "3")
    add(timeline, "4", "3+1", "x = 4")
    add(timeline, "6", "3", "x = 6")
    add(timeline, "8", "2", "x = 8")
    add(timeline, "7", "6", "x = 7")
    timeline.label("3", "good")
    return timeline


def graph(timeline: Timeline) -> list[str]:
    return [f"{row.graph} {row.key}" for row in render.rows(timeline, NOW)]


def line(text: str, word: str) -> str:
    return next(x for x in text.splitlines() if word in x)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.0146, "15 ms"),
        (0.9994, "999 ms"),
        (0.9999, "1.0 s"),
        (3.21, "3.2 s"),
        (59.97, "1 min"),
        (125, "2 min 5 s"),
        (3599.9, "1 h"),
        (12_000, "3 h 20 min"),
        (187_300, "2 d 4 h"),
        (-5, "0.0 ms"),
    ],
)
def test_span(seconds: float, words: str) -> None:
    assert render.span(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (3.9, "3 s"), (720, "12 min"), (18_000, "5 h"), (200_000, "2 d")],
)
def test_age(seconds: float, words: str) -> None:
    assert render.age(seconds) == words


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1200, "1.2 kB"),
        (1_234_567, "1.2 MB"),
        (340_000_000, "340 MB"),
        (999_700, "1.0 MB"),
        (999_700_000_000, "1.0 TB"),
        (5_000_000_000_000, "5.0 TB"),
    ],
)
def test_size(amount: int, words: str) -> None:
    assert render.size(amount) == words


def test_the_way_to_the_head_is_flat_and_branches_are_indented(tree: Timeline) -> None:
    assert graph(tree) == [
        "○ 0",
        "● 1",
        "● 2",
        "├─● 8",
        "● 3",
        "├─● 3+1",
        "│ ● 4",
        "● 6",
        "● 7",
    ]
    tree.move("8")
    assert graph(tree) == [
        "○ 0",
        "● 1",
        "● 2",
        "├─● 3",
        "│ ├─● 3+1",
        "│ │ ● 4",
        "│ ● 6",
        "│ ● 7",
        "● 8",
    ]


def test_several_branches_come_oldest_first() -> None:
    timeline = chain(2)
    for key in ("2", "3", "4"):
        add(timeline, key, "1", "x")
    assert graph(timeline) == ["○ 0", "● 1", "├─● 2", "├─● 3", "● 4"]


def test_a_thousand_cells_in_a_row_are_a_flat_list() -> None:
    timeline = chain(1000)
    assert {row.graph for row in render.rows(timeline, NOW)} == {"○", "●"}
    timeline.move("5")
    assert {row.graph for row in render.rows(timeline, NOW)} == {"○", "●"}


def test_lives_of_the_kernel_are_drawn_one_after_the_other() -> None:
    timeline = chain(2)
    timeline.adopt()
    add(timeline, "0", None)
    assert graph(timeline) == ["○ r1.0", "● r1.1", "○ 0"]


def test_graphs_of_random_trees_show_the_parents() -> None:
    """Read the drawing as a person does and find the parent of each row."""
    rng = random.Random(3)
    for _ in range(40):
        timeline = Timeline()
        add(timeline, "0", None)
        for cell in range(1, 40):
            parent = rng.choice(list(timeline)) if rng.random() < 0.3 else timeline.head
            add(timeline, str(cell), parent, "x")
        timeline.move(rng.choice(list(timeline)))
        drawn = render.rows(timeline, NOW)
        assert sorted(row.key for row in drawn) == sorted(timeline)
        latest: dict[int, str] = {}
        for row in drawn:
            column = len(row.graph) - 1
            # A dot hangs below the latest dot of its column, or of the column where ├ stands.
            above = column - 2 if row.graph.endswith("├─●") else column
            parent_key = timeline.get(row.key).parent
            assert (row.graph == "○") == (parent_key is None)
            if parent_key is not None:
                assert latest[above] == parent_key
            latest[column] = row.key


def test_text_holds_what_is_known_of_each_checkpoint(tree: Timeline) -> None:
    tree.amend("7", cost=Cost(0.0146, 0.009, 1_200_000, 34_567), duration=3.2)
    tree.amend("3", reason="a terminal is open")
    tree.amend("6", status="error")
    text = render.text(tree, NOW)
    assert re.fullmatch(r"→   ● 7 .* 1 min +3\.2 s  15 ms, 1\.2 MB  x = 7", line(text, "x = 7"))
    assert re.fullmatch(
        r" ✗  ● 3  +good +1 min +3 ms .*x = 3  ✗ a terminal is open", line(text, "x = 3")
    )
    assert line(text, "x = 6").startswith(" !  ● 6")
    assert "(the guest went on by itself)" in line(text, "3+1")
    assert "(fresh guest)" in line(text, "○ 0")
    assert text.splitlines()[0].split() == ["checkpoint", "label", "age", "ran", "cost", "code"]


def test_only_the_first_line_of_code_is_shown_and_it_fits() -> None:
    timeline = chain(2)
    add(timeline, "2", "1", "\n\n  let long = '" + "あ" * 100 + "'\nmore()")
    add(timeline, "3", "2", "a()\nb()")
    add(timeline, "4", "3", "\x1b[31mred\x07\u202e \t tab")
    add(timeline, "5", "4", "   \n")
    text = render.text(timeline, NOW, width=80)
    assert line(text, "● 3").endswith("a() …")
    assert "[31mred" in text
    assert not set("\x1b\x07\u202e\t") & set(text)
    wide = line(text, "● 2")
    assert len(wide) + wide.count("あ") <= 80
    assert wide.endswith("…")


def test_long_timelines_show_the_end_and_say_so() -> None:
    timeline = chain(1000)
    text = render.text(timeline, NOW)
    assert text.splitlines()[0] == "… 800 more above; %timeline --all shows all"
    assert len(text.splitlines()) == 202
    assert "● 999" in text
    assert "● 799 " not in text
    assert render.html(timeline, NOW).count("<tr") == 201
    assert len(render.text(timeline, NOW, limit=None).splitlines()) == 1001
    timeline.move("3")
    assert "the head is 3, above" in render.text(timeline, NOW)
    assert "the head is 3, above" in render.html(timeline, NOW)


def test_an_empty_timeline() -> None:
    assert render.text(Timeline(), NOW) == "no checkpoint yet"
    assert "no checkpoint yet" in render.html(Timeline(), NOW)


class Tags(HTMLParser):
    """Checks that tags are closed in order and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"style", "title", "colspan"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def test_html_is_well_formed_and_lets_no_code_through(tree: Timeline) -> None:
    evil = '<script>alert("1")</script>&amp;' + "x" * 100 + '\' onload="f()"'
    add(tree, "9", "7", evil)
    tree.amend("3", reason="<img src=x onerror=alert(1)>")
    tags = read(render.html(tree, NOW))
    assert tags.seen == {"div", "table", "tr", "th", "td", "span"}
    assert '<script>alert("1")</script>&amp;' in tags.text
    assert "✗ <img src=x" in tags.text
    for word in ("→", "good", "3+1", "(the guest went on by itself)", "├─", "1 min"):
        assert word in tags.text


def test_html_has_no_colour_that_a_theme_cannot_change(tree: Timeline) -> None:
    for colour in re.findall(r"[;\"](?:color|background):([^;]*)", render.html(tree, NOW)):
        assert colour.startswith("var(--jp-") or colour == "transparent"


STATUS: dict[str, object] = {
    "state": "idle",
    "engine": {"name": "local", "ready": True, "socket": None, "cpu": 1.5},
    "limits": {"memory <max>": "2 GB", "paths": ["/tmp", "/home/work"], "none": []},
}


def test_status_as_text_is_aligned() -> None:
    assert render.status_text(STATUS).splitlines() == [
        "state           idle",
        "engine",
        "  name          local",
        "  ready         yes",
        "  socket        –",
        "  cpu           1.5",
        "limits",
        "  memory <max>  2 GB",
        "  paths         /tmp, /home/work",
        "  none          –",
    ]
    assert render.status_text({}) == ""


def test_status_as_html() -> None:
    tags = read(render.status_html(STATUS))
    assert tags.seen == {"table", "tr", "th", "td"}
    assert "memory <max>" in tags.text
    read(render.status_html({}))
