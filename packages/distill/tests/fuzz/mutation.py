"""Valid files made invalid: by their bytes, by their JSON values, lines and cells, and by the headers of tars.

This file is the same in the tests of every package; its source is contract/fuzz/mutation.py.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

Bytes = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
DEEP = 3000
LITERALS = (  # JSON as it is written, right and wrong
    b"null", b"true", b"0", b"-1", b"1", b"1.5", b"-0.0", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616",
    b"1" + b"0" * 40, b"9" * 5000, b'""', b'"\\ud800"', b'"\\u0000"', b'"../../x"', b'"/etc/passwd"', b'"a/../../b"',
    b'"nan"', b'"None"', b'"1"', b'" "', b'"' + b"a" * 3000 + b'"', '"\u202e\u00e9\U0001f600"'.encode(), b'"\xff"',
    b"[]", b"{}", b"[null]", b"[[]]", b"[1, 2, 3]", b'{"a": 1, "a": 2}', b'{"": null}', b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP,
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\n\n", b"\t", b",", b'"', b"'", b"[", b"]", b"{", b"}", b":",
    b"../", b"NaN", b"1e999", b"-1", b"99999999999999999999", b"\xed\xa0\x80", "\u2028".encode(), b"\x85", b"\x1b[2J",
    b"<script>", b"&a ", b"*a ", b"<<: ", b"!!python/object/apply:os.system ", b"---\n", b"\\u0000", b"\xc3\x28",
    b"%s%n", b"${x}",
)  # fmt: skip
FIELDS = (  # of a header in a tar: where each begins, and its length
    (0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155),
)  # fmt: skip


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """`data` changed in one to five ways that fit its form."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        data = rng.choice(_ways(data))(data, rng, others)
    return data


def _ways(data: bytes) -> Sequence[Bytes]:
    ways: tuple[Bytes, ...] = (_flip, _overwrite, _insert, _delete, _double, _splice, _cut, _number, _integer)
    if data[257:262] == b"ustar":
        return (*ways[:7], *(_header,) * 6)
    if data[:1] in b"{[" and data:
        return (*ways, *(_value,) * 12, _encoded)
    return (*ways, _line, _line, _encoded)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    at = rng.randrange(len(data) + 1)
    return at, min(len(data), at + int(rng.paretovariate(0.6)))


def _flip(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    if not data:
        return rng.randbytes(8)
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _overwrite(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    at, _ = _span(data, rng)
    token = rng.choice((rng.choice(TOKENS), rng.randbytes(rng.randrange(1, 9))))
    return data[:at] + token + data[at + len(token) :]


def _insert(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    at, _ = _span(data, rng)
    return data[:at] + rng.choice((*TOKENS, *LITERALS)) + data[at:]


def _delete(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    begin, end = _span(data, rng)
    return data[:begin] + data[end:]


def _double(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    begin, end = _span(data, rng)
    return data[:end] + data[begin:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _cut(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _number(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Another number in the place of one that is written in digits."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not found:
        return _insert(data, rng, others)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(LITERALS[2:18]) + data[one.end() :]


def _integer(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """An extreme little-endian integer over some bytes, as binary headers hold them."""
    size = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, len(data) // 2))
    value = rng.choice((0, 1, (1 << 8 * size) - 1, 1 << 8 * size - 1, (1 << 8 * size - 1) - 1, 1 << 4 * size))
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def _encoded(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The text in another encoding, with a mark of order, or with other ends of lines."""
    kind = rng.choice(("utf-16", "utf-8-sig", "latin-1", "crlf", "cr"))
    if kind in ("crlf", "cr"):
        return data.replace(b"\n", b"\r\n" if kind == "crlf" else b"\r")
    return data.decode("utf-8", "replace").encode(kind, "replace")


def _line(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A line or a cell twice, elsewhere, gone, or another."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    what = rng.randrange(5)
    if what == 0:
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif what == 1:
        del lines[at]
    else:
        separator = rng.choice((b"\t", b",", b": ", b" "))
        cells = lines[at].split(separator)
        cell = rng.randrange(len(cells))
        cells[cell : cell + 1] = [[], [cells[cell]] * 2, [rng.choice((*LITERALS, *TOKENS))]][what - 2]
        lines[at] = separator.join(cells)
    return b"\n".join(lines)


def _value(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """JSON, or one line of it, with a value replaced, left out, added or renamed."""
    lines = data.split(b"\n") if data[:1] == b"{" and data.count(b"\n{") else [data]
    at = rng.randrange(len(lines))
    try:
        whole = json.loads(lines[at])
    except (ValueError, RecursionError):
        return _insert(data, rng, others)
    mark = f"mark{rng.getrandbits(64)}"
    lines[at] = json.dumps(_changed(whole, rng, mark)).encode().replace(f'"{mark}"'.encode(), rng.choice(LITERALS))
    return b"\n".join(lines)


def _changed(whole: Any, rng: random.Random, mark: str) -> Any:
    places: list[tuple[Any, Any]] = []
    todo = [whole]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    if not places or rng.random() < 0.05:
        return mark
    node, key = rng.choice(places)
    what = rng.choice(("set", "set", "set", "drop", "add", "rename"))
    if what == "drop":
        del node[key]
    elif what == "rename" and isinstance(node, dict):
        node[rng.choice((f"{key}s", f" {key}", "", "__class__"))] = node.pop(key)
    elif what == "add" and isinstance(node, list):
        node.insert(key, rng.choice((mark, node[key])))
    elif what == "add":
        node[rng.choice(("extra", f"{key}2"))] = mark
    else:
        node[key] = mark
    return whole


def _header(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A tar with a field of a header changed, and the header's checksum made right again."""
    starts = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return _flip(data, rng, others)
    at, (begin, size) = rng.choice(starts), rng.choice(FIELDS)
    header = bytearray(data[at : at + 512])
    values = (
        b"", b"0", b"-1", b"7" * size, b"\x80" + b"\xff" * (size - 1), b"\xff" * size, b"\x80" + b"\0" * (size - 1),
        b"../../x.jpg", b"/etc/x.txt", b"a\\b.txt", b"1", b"2", b"L", b"x", b"g", b"S", b"5", b"0000.jpg",
        b"\xff\xfe.txt", b" ", b"00000000010\0",
        rng.randbytes(size),
    )  # fmt: skip
    header[begin : begin + size] = rng.choice(values)[:size].ljust(size, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]
