"""Frames, and the protocol buffers that CRIU speaks."""

from __future__ import annotations

import json
import random
import struct

import pytest

from crkernel.guest import protobuf, wire


def test_frames_come_out_however_they_are_cut() -> None:
    sizes = (0, 1, 300, 70_000, 5, 300_000)
    messages = [{"op": "x" * n, "id": n, "emoji": "🦖"} for n in sizes]
    stream = b"".join(map(wire.pack, messages))
    rng = random.Random(7)
    decoder, out = wire.Decoder(), []
    while stream:
        size = rng.choice((1, 3, 4, 5, 1000, 65536))
        out += map(wire.parse, decoder.feed(stream[:size]))
        stream = stream[size:]
    assert out == messages
    assert decoder.leftover == b""


def test_a_decoder_goes_on_where_another_one_stopped() -> None:
    frame = wire.pack({"half": "and half"})
    first = wire.Decoder()
    assert first.feed(frame[:9]) == []
    second = wire.Decoder(first.leftover)
    assert [wire.parse(body) for body in second.feed(frame[9:])] == [{"half": "and half"}]


def test_a_frame_that_claims_too_much_is_refused_at_once() -> None:
    with pytest.raises(wire.WireError, match="claims"):
        wire.Decoder().feed(struct.pack("!I", wire.MAX_FRAME + 1))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"7", b"\xff{}", b"{]" * 9, b"[" * 100_000, b'{"a":NaN}', b"{} ", b"{}{}"],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse(body)


def test_lone_surrogates_become_replacement_characters() -> None:
    body = rb'{"lone":"a\ud83db","low":"\udc00","typed":"\\ud83d","escaped":"\\\ud800"}'
    assert wire.parse(body) == {
        "lone": "a\ufffdb",
        "low": "\ufffd",
        "typed": "\\ud83d",
        "escaped": "\\\ufffd",
    }


@pytest.mark.parametrize("escape", [r"\uD800", r"\uDfFf", r"\udC00", r"\\\uDBFF"])
def test_a_guest_may_spell_lone_surrogates_as_it_likes(escape: str) -> None:
    message = wire.parse(f'{{"a{escape}":["{escape}"]}}'.encode())
    json.dumps(message, ensure_ascii=False).encode()
    assert "\ufffd" in str(message)


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":"' + b'[{,\\"' * wire.MOST_VALUES + b'"}',
        b'{"text":["' + b"[" * 1000 + b'\\"[","]"]}',
        b'{"a":'
        + b'[{"b":' * (wire.MOST_DEEP // 2 - 1)
        + b"1"
        + b"}]" * (wire.MOST_DEEP // 2 - 1)
        + b"}",
        b'{"a":[' + b"[],{}," * 100_000 + b"0]}",
    ],
)
def test_what_may_be_a_message_by_its_shape(body: bytes) -> None:
    assert wire.parse_guests(body) == json.loads(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"a":[' + b"[]," * wire.MOST_VALUES + b"0]}", "more than 2000000 values"),
        (b'{"a":["\\\\",' + b"0," * wire.MOST_VALUES + b"no JSON", "more than 2000000 values"),
        (b'{"a":' + b"[" * wire.MOST_DEEP + b"]" * wire.MOST_DEEP + b"}", "deeper"),
        (b'{"a":' + b'[{"b":' * 126 + b"1" + b"}]" * 126 + b"}", "deeper"),
        (b'{"a":' + b"[" * 100_000, "recursion"),
    ],
)
def test_what_becomes_too_much_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(wire.WireError, match=says):
        wire.parse_guests(bytearray(body))


def test_astral_characters_survive_both_ways() -> None:
    (body,) = wire.Decoder().feed(wire.pack({"code": "'🦖'"}))
    assert wire.parse(body) == {"code": "'🦖'"}
    assert json.loads(body) == {"code": "'🦖'"}


def test_protocol_buffers() -> None:
    fields: list[protobuf.Field] = [(1, 150), (2, "testing"), (3, b"\0\xff"), (68, True), (4, 0)]
    data = protobuf.encode(fields)
    assert data.startswith(b"\x08\x96\x01\x12\x07testing")  # the examples of the specification
    assert list(protobuf.decode(data)) == [
        (1, 150),
        (2, b"testing"),
        (3, b"\0\xff"),
        (68, 1),
        (4, 0),
    ]


def test_negative_numbers_take_ten_bytes() -> None:
    ((number, value),) = protobuf.decode(protobuf.encode([(1, -1)]))
    assert (number, value) == (1, (1 << 64) - 1)


@pytest.mark.parametrize("data", [b"\x08", b"\x12\x05ab", b"\x0b", b"\xff" * 11, b"\x09abc"])
def test_broken_protocol_buffers_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="protocol buffer"):
        list(protobuf.decode(data))
