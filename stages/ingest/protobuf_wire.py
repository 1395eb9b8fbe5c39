"""Protocol buffers by their wire format alone: the fields of a message, and many small messages of one shape at once.

See "Encoding" in the protocol buffers documentation. No schema is read and no code is generated.
"""

import struct
from collections.abc import Iterator, Mapping

import numpy as np

Value = int | float | memoryview
_FIXED = {1: (8, "<d"), 5: (4, "<f")}  # wire types 1 and 5 are read as floating point, which is all that we meet
_LONGEST_VARINT = 10


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned varint and the place after it.

    Raises:
        ValueError: if it does not end within the data.
    """
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at + shift >= len(data):
            break
        byte = data[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("a varint has no end")


def fields(data: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yield number, wire type and value of each field of a message, in order.

    Raises:
        ValueError: if the bytes are no message.
    """
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
            yield number, kind, value
        elif kind == 2:
            length, at = read_varint(data, at)
            if at + length > len(data):
                raise ValueError("a field is longer than its message")
            yield number, kind, data[at : at + length]
            at += length
        elif kind in _FIXED:
            size, code = _FIXED[kind]
            if at + size > len(data):
                raise ValueError("a field is longer than its message")
            yield number, kind, struct.unpack_from(code, data, at)[0]
            at += size
        else:
            raise ValueError(f"wire type {kind} is not in use")


def read_columns(messages: list[memoryview], wanted: Mapping[int, int]) -> np.ndarray:
    """Return the wanted numeric fields of many messages.

    Messages whose fields stand in the same places, as those of one writer do, are decoded together by array views; only the
    first of each shape is read field by field.

    Args:
        messages: the messages' bytes.
        wanted: column by field number; fields may be varints, floats or doubles.

    Returns:
        `[len(messages), len(wanted)]` float64, NaN where a message has no such field; the last of a repeated one counts.

    Raises:
        ValueError: if the bytes of any are no message.
    """
    result = np.full((len(messages), len(wanted)), np.nan)
    lengths = np.array([len(message) for message in messages])
    for length in np.unique(lengths):
        rest = np.flatnonzero(lengths == length)
        raw = np.frombuffer(b"".join(messages[index] for index in rest), np.uint8).reshape(len(rest), int(length))
        while len(rest):
            layout, fixed = _layout(memoryview(raw[0].tobytes()))
            alike = (raw[:, fixed] == raw[0, fixed]).all(1)
            for number, kind, offset, value in layout:
                if number in wanted:
                    column = np.full(int(alike.sum()), float(value))
                    if kind in _FIXED:
                        size, code = _FIXED[kind]
                        column = raw[alike, offset : offset + size].copy().view(code)[:, 0].astype(float)
                    result[rest[alike], wanted[number]] = column
            rest, raw = rest[~alike], raw[~alike]
    return result


def _layout(message: memoryview) -> tuple[list[tuple[int, int, int, float]], np.ndarray]:
    """Return number, wire type, offset and value of each number in a message, and the bytes that make its shape.

    The shape is everything but the bytes of floats and doubles: tags, lengths, and the values of varints.
    """
    found: list[tuple[int, int, int, float]] = []
    shape = np.ones(len(message), bool)
    at = 0
    while at < len(message):
        tag, after = read_varint(message, at)
        number, kind = tag >> 3, tag & 7
        _, _, value = next(fields(message[at:]))
        if kind in _FIXED:
            size, _ = _FIXED[kind]
            shape[after : after + size] = False
            at = after + size
        elif kind == 2:
            length, start = read_varint(message, after)
            at = start + length
            continue
        else:
            _, at = read_varint(message, after)
        if not isinstance(value, memoryview):
            found.append((number, kind, after, float(value)))
    return found, shape
