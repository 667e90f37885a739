"""Messages as the base class packs them, and what this one does without."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from crkernel.packing import Packing

Json = dict[str, Any]


@pytest.fixture
def client() -> Session:
    return Session(key=b"secret")


@pytest.fixture
def kernel() -> Packing:
    return Packing(key=b"secret")


def sent(session: Session, *arguments: Any, **options: Any) -> list[bytes]:
    """The frames of a message, without the delimiter before them."""
    message = session.msg(*arguments, **options)
    return session.serialize(message)[1:]


def test_a_message_arrives_and_dates_stay_texts(client: Session, kernel: Packing) -> None:
    content = {"code": "1 + 1 // ☕", "when": "2020-02-02T02:02:02.000002Z"}
    frames = sent(client, "execute_request", content, metadata={"cellId": "a"})
    message = kernel.deserialize([*frames, b"buffer"])
    expected = client.deserialize(frames)
    assert isinstance(message["header"].pop("date"), str)
    del expected["header"]["date"]
    assert [bytes(buffer) for buffer in message.pop("buffers")] == [b"buffer"]
    assert message == {key: value for key, value in expected.items() if key != "buffers"}


def test_frames_of_zmq_are_taken_as_well(client: Session, kernel: Packing) -> None:
    frames = [zmq.Frame(part) for part in (*sent(client, "comm_msg", {"data": {}}), b"buffer")]
    message = kernel.deserialize(frames, copy=False)
    assert message["content"] == {"data": {}}
    assert bytes(message["buffers"][0]) == b"buffer"


def test_who_only_looks_does_not_take_it(client: Session, kernel: Packing) -> None:
    frames = sent(client, "execute_request", {"code": "1"})
    assert kernel.deserialize(frames, content=False)["content"] == b'{"code": "1"}'
    assert kernel.deserialize(frames)["content"] == {"code": "1"}


@pytest.mark.parametrize("spoil", ["signature", "content", "again", "cut", "unsigned"])
def test_what_nobody_has_signed_is_refused(client: Session, kernel: Packing, spoil: str) -> None:
    frames = sent(client, "execute_request", {"code": "1"})
    if spoil == "signature":
        frames[0] = b"0" * 64
    elif spoil == "content":
        frames[4] = b"{}"
    elif spoil == "again":
        kernel.deserialize(frames)
    elif spoil == "cut":
        frames.pop()
    else:
        frames[0] = b""
    with pytest.raises((ValueError, TypeError)):
        kernel.deserialize(frames)


def test_a_wrong_signature_does_not_spoil_the_right_message(
    client: Session, kernel: Packing
) -> None:
    frames = sent(client, "execute_request", {"code": "1"})
    with pytest.raises(ValueError, match="is wrong"):
        kernel.deserialize([*frames[:4], b"{}"])
    assert kernel.deserialize(frames)["content"] == {"code": "1"}


def test_what_is_sent_is_what_the_base_class_sends(client: Session, kernel: Packing) -> None:
    """Also to one request after the other, and as content that is packed already."""
    for code in ("1", "2"):
        request = kernel.deserialize(sent(client, "execute_request", {"code": code}))
        for content in ({"text": "☕\n"}, b'{"text": 1}', {"text": None}):
            frames = sent(kernel, "stream", content, parent=request, metadata={"a": code})
            message = client.deserialize(frames)
            assert message["parent_header"]["msg_id"] == request["msg_id"]
            assert frames[2] == client.pack(request["header"])
            assert frames[4] == (content if isinstance(content, bytes) else client.pack(content))
            assert message["metadata"] == {"a": code}
    assert sent(kernel, "status", {})[2] == b"{}"


def test_what_is_no_json_is_mended_as_before(kernel: Packing) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert kernel.pack({"a": float("nan")}) == b'{"a": "nan"}'
    with pytest.raises(ValueError, match="surrogates"):
        kernel.pack({"a": "\ud800"})


def test_who_configures_a_packer_gets_it() -> None:
    session = Packing(key=b"secret", packer="pickle", unpacker="pickle")
    message = session.deserialize(sent(session, "status", {"execution_state": "idle"}))
    assert message["content"] == {"execution_state": "idle"}
