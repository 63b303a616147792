"""ZIP archives as torch.save writes them: stored members, found by the central directory."""
import struct

from .failure import Refused, shown
from .files import MAX_INDEX, Span

END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")
ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL = struct.Struct("<4s5H3I2H")


def read_archive(source):
    """The members of a ZIP file, name -> Span, by its central directory: stored, unencrypted, unique and apart."""
    count, size, position = read_directory_end(source)
    directory = source.read(position, size)
    members, at = {}, 0
    for _ in range(count):
        name, span, at = read_entry(source, directory, at, position)
        if name in members:
            raise Refused(f"has two ZIP members called {shown(name)}")
        members[name] = span
    if at != size:
        raise Refused("has a ZIP directory that is longer than its members")
    spans = sorted(members.values(), key=lambda span: span.position)
    if any(a.position + a.size > b.position for a, b in zip(spans, spans[1:])):
        raise Refused("has ZIP members that overlap")
    return members


def read_directory_end(source):
    """Number of members, size and position of the central directory."""
    at = source.size - END.size
    signature, disk, first, here, count, size, position, comment = END.unpack(source.read(at, END.size))
    if signature != b"PK\5\6" or comment:
        raise Refused("is a ZIP file without its end: truncated, or with something appended")
    if disk or first or here != count:
        raise Refused("is a ZIP file in several parts")
    if position + size > at:
        raise Refused("has a ZIP directory that lies outside the file")
    if size > MAX_INDEX:
        raise Refused(f"has a ZIP directory of {size} bytes, more than the {MAX_INDEX} that are read")
    check_zip64_end(source, at, (count, size, position))
    return count, size, position


def check_zip64_end(source, at, expected):
    """PyTorch writes ZIP64 end records, needless below 4 GiB: one that is there must say the same again."""
    if at < LOCATOR.size:
        return
    signature, disk, position, disks = LOCATOR.unpack(source.read(at - LOCATOR.size, LOCATOR.size))
    if signature != b"PK\6\7":
        return
    if disk or disks > 1 or position > at - LOCATOR.size - END64.size:
        raise Refused("has a ZIP64 end record that lies outside the file")
    signature, _, _, _, disk, first, here, *said = END64.unpack(source.read(position, END64.size))
    if signature != b"PK\6\6" or disk or first or (here, *said) != (expected[0], *expected):
        raise Refused("has a ZIP64 end record that contradicts the ZIP file's end")


def read_entry(source, directory, at, end_of_data):
    """One member of the central directory: its name, its Span, and where the next entry begins."""
    if at + ENTRY.size > len(directory):
        raise Refused("has a ZIP directory that is shorter than its members")
    (signature, _, _, flags, method, _, _, crc, packed, size, name_size, extra_size, comment_size, disk, _, _,
     local) = ENTRY.unpack_from(directory, at)
    name_at = at + ENTRY.size
    raw_name = directory[name_at:name_at + name_size]
    after = name_at + name_size + extra_size + comment_size
    if signature != b"PK\1\2" or disk or after > len(directory):
        raise Refused("has a damaged ZIP directory")
    name = member_name(raw_name)
    if flags & 0x2041:  # encrypted, strongly encrypted, encrypted directory
        raise Refused(f"has an encrypted ZIP member, {shown(name)}")
    if method or packed != size:
        raise Refused(f"has a compressed ZIP member, {shown(name)}: torch.save stores them")
    position = data_position(source, local, raw_name)
    if position + size > end_of_data:
        raise Refused(f"has a ZIP member that lies outside the file, {shown(name)}: {size} bytes at {position}")
    return name, Span(source, position, size, crc), after


def member_name(raw):
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Refused("has a ZIP member whose name is not UTF-8") from None


def data_position(source, local, raw_name):
    """Where a member's bytes begin: behind its local header, of which only name and extra field count (the sizes may
    be 0 there)."""
    fields = LOCAL.unpack(source.read(local, LOCAL.size))
    position = local + LOCAL.size
    if fields[0] != b"PK\3\4" or fields[3] or source.read(position, fields[9]) != raw_name:
        raise Refused(f"has a ZIP member whose local header differs from the directory: {shown(raw_name.decode())}")
    return position + fields[9] + fields[10]

