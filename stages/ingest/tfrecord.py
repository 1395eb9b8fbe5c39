"""TFRecord files without TensorFlow: where each record lies, and its bytes once their checksums hold.

A record is its length (uint64, little endian), a masked CRC32C of those eight bytes, the data, and a masked CRC32C of the
data (TensorFlow's guide "TFRecord and tf.train.Example").
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from schemas.errors import WorldlineError

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """Where the data of a record lies in its file: offset and length in bytes."""

    offset: int
    length: int


def find_records(path: Path) -> tuple[list[Record], str]:
    """Return the records of a file, and why the rest of it cannot be read ("" where all of it can).

    Only the lengths are checked here; `read_record` checks the data.
    """
    records: list[Record] = []
    size = path.stat().st_size
    with path.open("rb") as stream:
        at = 0
        while at < size:
            stream.seek(at)
            header = stream.read(_HEADER.size)
            number = len(records)
            if len(header) < _HEADER.size:
                return records, f"it ends inside the header of record {number}"
            length, checksum = _HEADER.unpack(header)
            if masked_crc(header[:8]) != checksum:
                return records, f"the checksum of the length of record {number} is wrong"
            if at + _HEADER.size + length + _FOOTER.size > size:
                return records, f"it ends inside record {number}"
            records.append(Record(at + _HEADER.size, length))
            at += _HEADER.size + length + _FOOTER.size
    return records, ""


def read_record(path: Path, record: Record, shown: str) -> bytes:
    """Return the data of a record.

    Raises:
        WorldlineError: if its checksum is wrong.
    """
    with path.open("rb") as stream:
        stream.seek(record.offset)
        data = stream.read(record.length)
        footer = stream.read(_FOOTER.size)
    if len(footer) < _FOOTER.size or _FOOTER.unpack(footer)[0] != masked_crc(data):
        raise WorldlineError(f"{shown}: the checksum of the record at byte {record.offset} is wrong: download that file again")
    return data


def masked_crc(data: bytes) -> int:
    """Return TensorFlow's masked CRC32C: rotated right by 15 bits plus a constant, so that a CRC of data with CRCs is none."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF
