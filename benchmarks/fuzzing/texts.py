"""Bytes and lines of text, changed at random."""

from __future__ import annotations

import random

_LINES = (
    "", "\t", "\tx: 1", "---", "...", "- ", "? a", "? [1]", ": 1", "x: &a 1", "y: *a", "z: *nothing", "<<: *a",
    "<<: {seed: 1}", "&a : *a", "!!python/object:os.system x", "x: !!binary aGk=", "x: !mine y", "%YAML 1.1",
    "%TAG ! tag:x,2002:", "# ünï", "x: |", "x: >-2", "x: 'open", 'x: "\\q"', 'x: "\\ud800"', '"\\ud800": 1', "x: 0x1F",
    "x: 0x" + "f" * 5000, "x: 0o17", "x: 1_000", "x: 12:30:45", "x: 2026-11-27", "x: .nan", "x: -.inf", "x: 1e999",
    "x: " + "9" * 5000, "x: yes", "{", "}", "[", "]", "seed: 1", "steps: [", "x: ${HOME}", "\ue000" + "0\ue001", "x: @",
    "x: `", "-", "- - - -", "a: b: c", "\u2028", "\ufeffversion: 1", "\x07", "x: \U0001f600", "x: " + "${" * 9000,
)  # fmt: skip
"""Lines that say something to YAML, or nothing it knows."""


def damage(rng: random.Random, content: bytes) -> bytes:
    """Change, take out or put in bytes at one to six places, or cut the end off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(changed) + 1)
        changed[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 2))
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.1 else changed)


def scramble(rng: random.Random, text: str) -> str:
    """Change lines of a text: indent, repeat, move, drop, put odd ones in."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                lines[place] = rng.choice((" ", "  ", "\t", "    - ")) + lines[place]
            case 1:
                lines[place] = lines[place].lstrip()
            case 2:
                lines.insert(other, lines[place])
            case 3:
                lines[place], lines[other] = lines[other], lines[place]
            case 4:
                del lines[place]
                lines = lines or [""]
            case 5:
                lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
            case _:
                lines.insert(place, " " * rng.choice((0, 0, 2, 4)) + rng.choice(_LINES))
    return "\n".join(lines)


def encode(rng: random.Random, text: str) -> bytes:
    """Write a text as bytes, now and then in a way that nobody asked for."""
    match rng.randrange(40):
        case 0:
            return text.encode("utf-16", "surrogatepass")
        case 1:
            return text.encode("latin-1", "replace")
        case 2:
            return b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass")
        case 3:
            return text.replace("\n", "\r\n").encode("utf-8", "surrogatepass")
        case 4:
            return text.replace("\n", "\r").encode("utf-8", "surrogatepass")
        case _:
            return text.encode("utf-8", "surrogatepass")
