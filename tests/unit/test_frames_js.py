"""Long texts in frames of the guest: taken in pieces, and what JSON has as it is stays as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import crkernel.guest

_FRAMES = Path(crkernel.guest.__file__).with_name("frames.js")
_CHECK = """
const { addJson } = require(process.argv[1]);
const piece = 65536;
const base = 'abcdefgh'.repeat(piece / 3);
let wrong = 0;
function check(text) {
  const parts = [];
  addJson(text, parts);
  if (parts.join('') !== JSON.stringify(text)) wrong += 1;
}
const odd = ['\\ud800', '\\udfff', '\\u{1f600}', '\\u2028', '\\u65e5', '\\uffff'];
for (let code = 0; code < 0x101; code++) odd.push(String.fromCharCode(code));
for (const character of odd) {
  for (const at of [0, 1, 2, 3, piece - 2, piece - 1, piece, base.length - 1]) {
    check(base.slice(0, at) + character + base.slice(at + 1));
  }
}
check('\\u65e5\\u672c'.repeat(piece));
check('\\u{1f600}'.repeat(piece));
process.stdout.write(`${wrong} of ${odd.length}`);
"""

_READ = """
const { concat } = Buffer;
let copied = 0;
Buffer.concat = (parts) => {
  const whole = concat(parts);
  copied += whole.length;
  return whole;
};
const { FrameReader } = require(process.argv[1]);
const frame = (object) => {
  const body = Buffer.from(JSON.stringify(object));
  const header = Buffer.alloc(4);
  header.writeUInt32BE(body.length);
  return Buffer.concat([header, body]);
};
function read(bytes, size) {
  const objects = [];
  const reader = new FrameReader((object) => objects.push(object));
  for (let i = 0; i < bytes.length; i += size) reader.push(bytes.subarray(i, i + size));
  return objects;
}
const some = [{ a: 1 }, {}, { b: 'x'.repeat(300) }, { c: '\\u{1f600}' }];
const bytes = Buffer.concat(some.map(frame));
const wrong = [];
for (let size = 1; size <= bytes.length; size++) {
  if (JSON.stringify(read(bytes, size)) !== JSON.stringify(some)) wrong.push(size);
}
const big = frame({ code: 'x'.repeat(20_000_000) });
copied = 0;
const [{ code }] = read(big, 65536);
process.stdout.write(`${wrong} ${code.length} ${copied < 1.1 * big.length}`);
"""


def test_frames_come_in_chunks_of_any_size_and_are_copied_once(node: str) -> None:
    command = [node, "-e", _READ, str(_FRAMES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (" 20000000 true", "")


@pytest.mark.parametrize("patched", [False, True])
def test_a_long_text_in_pieces_is_its_json(node: str, patched: bool) -> None:
    late = "globalThis.Int32Array = globalThis.ArrayBuffer = Buffer.from = null;" if patched else ""
    code = _CHECK.replace("const piece", f"{late} const piece")
    command = [node, "-e", code, str(_FRAMES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("0 of 263", "")
