"""Messages of CRIU's images: what has a name can be read, and all the rest comes through."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from crkernel.guest import protobuf
from crkernel.guest.images import Images
from crkernel.guest.messages import kinds

MAPPING = [(1, 0x7F00_0000_0000), (2, 0x7F00_0000_2000), (3, 0), (4, 7), (8, -1), (99, b"new")]
MEMORY = [
    *((13, value) for value in (33, 1 << 63, 0)),  # a field of which there are several
    (12, 5),
    (14, protobuf.encode(MAPPING)),
    (14, protobuf.encode([(1, 1), (2, 2)])),
    (17, True),
]
HEADER = b"IMG " + b"mm  "


def test_named_fields_are_read_and_no_other_is_lost() -> None:
    (kind,) = islice(kinds("mm-5000.img"), 1)
    message = kind.parse(protobuf.encode(MEMORY))
    assert message["exe_file_id"] == 5
    assert [(vma["start"], vma["end"]) for vma in message["vmas"]] == [
        (0x7F00_0000_0000, 0x7F00_0000_2000),
        (1, 2),
    ]
    again = kind.parse(kind.encode(message))
    assert again == message
    fields = list(protobuf.decode(kind.encode(message)))
    assert [value for number, value in fields if number == 13] == [33, 1 << 63, 0]
    (first, _) = (dict(protobuf.decode(v)) for n, v in fields if n == 14 and isinstance(v, bytes))
    assert first[8] == (1 << 64) - 1
    assert first[99] == b"new"


def test_a_path_that_is_no_utf_8_stays_the_same() -> None:
    (kind,) = islice(kinds("files.img"), 1)
    name = b"/home/work/\xff\xc3\xa9"
    entry = protobuf.encode([(1, 1), (2, 9), (3, protobuf.encode([(1, 9), (6, name)]))])
    message = kind.parse(entry)
    assert message["reg"]["name"] == os.fsdecode(name)
    assert kind.encode(message) == entry


def test_the_first_entry_of_a_pagemap_is_its_head(tmp_path: Path) -> None:
    source, target = tmp_path / "old", tmp_path / "new"
    source.mkdir()
    target.mkdir()
    bodies = [protobuf.encode([(1, 3)]), protobuf.encode([(1, 4096), (2, 8), (4, 6), (5, 8)])]
    data = HEADER + b"".join(len(body).to_bytes(4, "little") + body for body in bodies)
    (source / "pagemap-1.img").write_bytes(data)
    images = Images(str(source), str(target))
    head, run = images.load("pagemap-1.img")
    assert head == {"pages_id": 3}
    assert run == {"vaddr": 4096, "compat_nr_pages": 8, "flags": 6, "nr_pages": 8}
    images.save("pagemap-1.img", [head, run])
    assert (target / "pagemap-1.img").read_bytes() == data

    for length in range(len(HEADER) + 1, len(data)):
        if length != len(HEADER) + 4 + len(bodies[0]):
            (source / "pagemap-1.img").write_bytes(data[:length])
            with pytest.raises(ValueError, match="cut short"):
                images.load("pagemap-1.img")
