"""Regular files, read in pieces whose place and size are held against the file's."""
import os
import stat
import zlib
from dataclasses import dataclass

from .failure import Failure, Refused, shown

MAX_CHECKPOINT = 2 << 30  # bytes
MAX_INDEX = 4 << 20  # bytes of a list of tensors: a ZIP directory, a JSON header; ResNet-152 needs 0.1 MiB


class Source:
    """A regular file, open for reading at any place."""

    def __init__(self, path, limit):
        try:
            # Without O_NONBLOCK a FIFO would wait here for somebody to write.
            self.file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
        except OSError as error:
            raise Failure(f"{shown(path)}: cannot be opened: {error.strerror}") from None
        status = os.fstat(self.file.fileno())
        self.path, self.size, self.identity = path, status.st_size, (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            self.file.close()
            raise Failure(f"{shown(path)}: is not a regular file")
        if self.size > limit:
            self.file.close()
            raise Refused(f"has {self.size} bytes, more than the {limit} that are read")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, position, count):
        """`count` bytes; nothing is asked of the memory before the file is known to have them."""
        if not 0 <= position <= self.size - count:
            raise Refused(f"is truncated: bytes {position} to {position + count} are asked for, it has {self.size}")
        try:
            self.file.seek(position)
            data = self.file.read(count)
        except OSError as error:
            raise Failure(f"{shown(self.path)}: cannot be read: {error.strerror}") from None
        if len(data) != count:
            raise Failure(f"{shown(self.path)}: became shorter while it was read")
        return data


@dataclass
class Span:
    """A range of a file: a ZIP member, or the numbers of a safetensors file."""
    source: Source
    position: int
    size: int
    crc: int = 0  # CRC-32; 0 where there is none: PyTorch can be told not to compute it

    def read(self, offset=0, count=None):
        count = self.size if count is None else count
        if not 0 <= offset <= self.size - count:
            raise Refused(f"bytes {offset} to {offset + count} of a part of {self.size} bytes are asked for")
        self.verify()
        return self.source.read(self.position + offset, count)

    def verify(self):
        """Compare the checksum, at the first read only: many tensors may share one storage."""
        if not self.crc:
            return
        crc, end = 0, self.position + self.size
        for position in range(self.position, end, 1 << 20):
            crc = zlib.crc32(self.source.read(position, min(1 << 20, end - position)), crc)
        if crc != self.crc:
            raise Refused(f"is damaged: the checksum of bytes {self.position} to {end} is wrong")
        self.crc = 0
