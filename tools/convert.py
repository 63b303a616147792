#!/usr/bin/env python3
"""Turns a PyTorch checkpoint of a ResNet (.pth or .safetensors) into a model file (models/FORMAT.md), without PyTorch.

A checkpoint passes through three parts that know nothing of each other: a reader (container -> names -> tensors), the
recognition (names and shapes -> network), and the writer (network and numbers -> model file). Checkpoints come from
strangers, so nothing in them is run, and no number in them is believed before it was held against the file's size.

Exit status: 0 converted, 2 wrong usage, 3 the checkpoint is refused, 4 a file cannot be read or written.
"""
import argparse
import functools
import json
import math
import os
import re
import secrets
import stat
import struct
import sys
import zlib
from dataclasses import dataclass, replace

try:
    import numpy as np
except ImportError:
    print("convert: NumPy is needed: install it for this Python", file=sys.stderr)
    sys.exit(4)

MAX_CHECKPOINT = 2 << 30  # bytes
MAX_INDEX = 4 << 20  # bytes of a ZIP directory or a safetensors header; ResNet-152 needs 0.1 MiB
MAX_PICKLE = 1 << 19  # bytes of data.pkl; bounds what its objects take in memory, ResNet-152 needs 0.1 MiB
MAX_MEMO = 1 << 16  # objects that a pickle may remember; ResNet-152 needs 7,500
MAX_MODEL = 1 << 30  # bytes of a model file
MAX_LABELS = 1 << 24  # bytes
MAX_DIMENSIONS = 8
MAX_SCATTER = 16 << 20  # bytes that a strided tensor may spread over beyond four times its own size


class Failure(Exception):
    """Ends the conversion with one line on stderr: by itself, that a file cannot be read or written."""
    status = 4


class Misuse(Failure):
    """The command line asks for something impossible."""
    status = 2


class Refused(Failure):
    """The checkpoint is not one that is read; the message goes behind its path."""
    status = 3


def shown(text, limit=200):
    """Text from outside as part of one line: no control characters, no end to it."""
    text = str(text)
    text = text[:limit] + "..." * (len(text) > limit)
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def listed(names, limit=3):
    """The first few of some names."""
    rest = len(names) - limit
    return ", ".join(shown(name, 120) for name in names[:limit]) + (f" and {rest} more" if rest > 0 else "")


# ---- Files ----

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


# ---- Tensors ----

DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "float64": "<f8", "int64": "<i8"}


def item_size(dtype):
    return np.dtype(DTYPES[dtype]).itemsize


def shape_text(shape):
    return "x".join(map(str, shape)) or "a single number"


@dataclass
class Tensor:
    """Where the numbers of a tensor are; strides and offset count elements. Made by view() only, which checks them."""
    dtype: str
    shape: tuple
    strides: tuple
    span: Span
    offset: int

    def values(self):
        """The numbers as a contiguous float32 array."""
        size = item_size(self.dtype)
        reach = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        if reach * size > 4 * math.prod(self.shape) * size + MAX_SCATTER:
            raise Refused(f"a tensor of {shape_text(self.shape)} is scattered over {reach * size} bytes")
        raw = self.span.read(self.offset * size, reach * size)
        array = np.ndarray(self.shape, DTYPES[self.dtype], raw, 0, [step * size for step in self.strides])
        if self.dtype == "bfloat16":  # the upper half of a float32
            return np.left_shift(array, 16, dtype="<u4", order="C").view("<f4")
        with np.errstate(all="ignore"):  # a float64 beyond float32 becomes infinite, and is refused for it later
            return array.astype("<f4", order="C", copy=False)


def is_size(number):
    return type(number) is int and number >= 0


def view(dtype, shape, strides, span, offset):
    """A tensor whose every element lies in its span, which holds at least as many: no shape can ask for more."""
    if not len(shape) == len(strides) <= MAX_DIMENSIONS or not all(map(is_size, (*shape, *strides, offset))):
        raise Refused("a tensor's shape, strides or offset are not a few sizes")
    held = span.size // item_size(dtype)
    count = math.prod(shape)
    reach = offset + (1 + sum((n - 1) * step for n, step in zip(shape, strides)) if count else 0)
    if max(count, reach) > held:
        raise Refused(f"a tensor of {shown(shape_text(shape))} reaches outside its storage of {held} elements")
    return Tensor(dtype, tuple(shape), tuple(strides), span, offset)


# ---- Reading: ZIP archives ----

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


# ---- Reading: the pickle inside ----

OPCODES = dict(zip(
    b"(.012FIJKLMNPQRSTUVX\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8bBC\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95"
    b"\x96\x97\x98]abcdeghijlopqrstu}G)",
    "MARK STOP POP POP_MARK DUP FLOAT INT BININT BININT1 LONG BININT2 NONE PERSID BINPERSID REDUCE STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE PROTO NEWOBJ EXT1 EXT2 EXT4 TUPLE1 TUPLE2 TUPLE3 NEWTRUE NEWFALSE LONG1 LONG4 "
    "BINBYTES SHORT_BINBYTES SHORT_BINUNICODE BINUNICODE8 BINBYTES8 EMPTY_SET ADDITEMS FROZENSET NEWOBJ_EX "
    "STACK_GLOBAL MEMOIZE FRAME BYTEARRAY8 NEXT_BUFFER READONLY_BUFFER EMPTY_LIST APPEND BUILD GLOBAL DICT APPENDS "
    "GET BINGET INST LONG_BINGET LIST OBJ PUT BINPUT LONG_BINPUT SETITEM TUPLE SETITEMS EMPTY_DICT BINFLOAT "
    "EMPTY_TUPLE".split()))


@dataclass(frozen=True)
class Tag:
    """Stands for a global of Python, and can do nothing."""
    name: str
    dtype: str = ""  # of a storage


@dataclass(frozen=True)
class Storage:
    """What a persistent id becomes."""
    dtype: str
    span: Span


ORDERED_DICT = Tag("OrderedDict")
REBUILD_TENSOR = Tag("_rebuild_tensor_v2")
REBUILD_PARAMETER = Tag("_rebuild_parameter")
GLOBALS = {
    b"collections\nOrderedDict": ORDERED_DICT,
    b"torch._utils\n_rebuild_tensor_v2": REBUILD_TENSOR,
    b"torch._utils\n_rebuild_parameter": REBUILD_PARAMETER,
    b"torch\nFloatStorage": Tag("FloatStorage", "float32"),
    b"torch\nHalfStorage": Tag("HalfStorage", "float16"),
    b"torch\nBFloat16Storage": Tag("BFloat16Storage", "bfloat16"),
    b"torch\nDoubleStorage": Tag("DoubleStorage", "float64"),
    b"torch\nLongStorage": Tag("LongStorage", "int64"),
}


class Pickle:
    """An interpreter of the few opcodes that torch.save writes for a state dict.

    An opcode is allowed where there is a method op_<its name> for it, and each makes nothing but the inert objects
    above, numbers, strings, tuples and dicts with string keys. `load_storage` turns a persistent id into a Storage.
    """

    def __init__(self, data, load_storage):
        self.data, self.at, self.load_storage = data, 0, load_storage
        self.stack, self.below, self.memo = [], [], {}  # `below` holds the stacks under each mark
        self.finished = False

    def run(self):
        start = 0
        try:
            while not self.finished:
                start = self.at
                self.step()
        except Refused as error:
            raise Refused(f"data.pkl, byte {start}: {error}") from None
        if len(self.stack) != 1 or self.below or self.at != len(self.data):
            raise Refused("data.pkl does not end with its one object")
        return self.stack[0]

    def step(self):
        code = self.take(1)[0]
        operation = OPERATIONS.get(code)
        if operation is None and code in OPCODES:
            raise Refused(f"the pickle opcode {OPCODES[code]} is not allowed: save only the model's state_dict()")
        if operation is None:
            raise Refused(f"0x{code:02x} is no pickle opcode")
        operation(self)

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Refused("the pickle is truncated")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, layout):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def pop(self):
        self.top()
        return self.stack.pop()

    def top(self):
        if not self.stack:
            raise Refused("the pickle takes from an empty stack")
        return self.stack[-1]

    def pop_mark(self):
        """Everything since the last mark; self.stack is another list afterwards."""
        if not self.below:
            raise Refused("the pickle looks for a mark that is not there")
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop_tuple(self, count):
        self.stack.append(tuple([self.pop() for _ in range(count)][::-1]))

    def remember(self, index):
        if len(self.memo) >= MAX_MEMO:
            raise Refused(f"the pickle remembers more than {MAX_MEMO} objects")
        self.memo[index] = self.top()

    def recall(self, index):
        if index not in self.memo:
            raise Refused(f"the pickle recalls object {index}, which it never stored")
        self.stack.append(self.memo[index])

    def set_items(self, items):
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise Refused("the pickle sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2]):
            if type(key) is not str:
                raise Refused("a dict has a key that is no string: save only the model's state_dict()")
            if key in target:
                raise Refused(f"{shown(key)} is there twice")
            target[key] = value

    def op_proto(self):
        version = self.take(1)[0]
        if version != 2 or self.at != 2:
            raise Refused(f"pickle protocol {version}: torch.save writes 2, once, at the start")

    def op_stop(self):
        self.finished = True

    def op_mark(self):
        self.below.append(self.stack)
        self.stack = []

    def op_binput(self):
        self.remember(self.number("<B"))

    def op_long_binput(self):
        self.remember(self.number("<I"))

    def op_binget(self):
        self.recall(self.number("<B"))

    def op_long_binget(self):
        self.recall(self.number("<I"))

    def op_empty_dict(self):
        self.stack.append({})

    def op_empty_tuple(self):
        self.stack.append(())

    def op_tuple(self):
        items = tuple(self.pop_mark())
        self.stack.append(items)

    def op_tuple1(self):
        self.pop_tuple(1)

    def op_tuple2(self):
        self.pop_tuple(2)

    def op_tuple3(self):  # the arguments of _rebuild_parameter
        self.pop_tuple(3)

    def op_binunicode(self):
        try:
            self.stack.append(self.take(self.number("<I")).decode())
        except UnicodeDecodeError:
            raise Refused("a string is not UTF-8") from None

    def op_binint(self):
        self.stack.append(self.number("<i"))

    def op_binint1(self):
        self.stack.append(self.number("<B"))

    def op_binint2(self):
        self.stack.append(self.number("<H"))

    def op_newfalse(self):
        self.stack.append(False)

    def op_newtrue(self):  # requires_grad of _rebuild_parameter
        self.stack.append(True)

    def op_setitem(self):
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def op_setitems(self):
        items = self.pop_mark()
        self.set_items(items)

    def op_global(self):
        lines = self.data[self.at:self.at + 256].split(b"\n", 2)
        if len(lines) < 3:
            raise Refused("a global has no end")
        name = b"\n".join(lines[:2])
        if name not in GLOBALS:
            called = shown(name.decode(errors="replace").replace("\n", "."))
            raise Refused(f"it wants {called}, which is not allowed: only tensors in dicts are read")
        self.at += len(name) + 1
        self.stack.append(GLOBALS[name])

    def op_binpersid(self):
        self.stack.append(self.load_storage(self.pop()))

    def op_reduce(self):
        arguments, function = self.pop(), self.pop()
        if type(function) is not Tag or type(arguments) is not tuple:
            raise Refused("the pickle calls something that is no function")
        if function is ORDERED_DICT and not arguments:
            self.stack.append({})
        elif function is REBUILD_TENSOR:
            self.stack.append(rebuild_tensor(arguments))
        elif function is REBUILD_PARAMETER and len(arguments) == 3 and type(arguments[0]) is Tensor:
            self.stack.append(arguments[0])
        else:
            raise Refused(f"the pickle calls {function.name} in a way that torch.save does not")

    def op_build(self):  # the _metadata of a state dict: module versions, of no use here
        state = self.pop()
        if type(self.top()) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise Refused("the pickle sets attributes other than the _metadata of a state dict")


OPERATIONS = {code: getattr(Pickle, "op_" + name.lower()) for code, name in OPCODES.items()
              if hasattr(Pickle, "op_" + name.lower())}


def rebuild_tensor(arguments):
    """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks) as a Tensor."""
    if (len(arguments) != 6 or list(map(type, arguments)) != [Storage, int, tuple, tuple, bool, dict] or arguments[5]):
        raise Refused("the pickle rebuilds a tensor in a way that torch.save does not")
    storage, offset, shape, strides = arguments[:4]
    return view(storage.dtype, shape, strides, storage.span, offset)


def load_storage(persistent_id, members, root):
    """The Storage of ('storage', type, key, location, number of elements): member <root>/data/<key> of the archive."""
    if type(persistent_id) is not tuple or list(map(type, persistent_id)) != [str, Tag, str, str, int]:
        raise Refused("a persistent id is not one of torch.save's")
    kind, tag, key, _, count = persistent_id
    if kind != "storage" or not tag.dtype:
        raise Refused("a persistent id names no storage")
    if not re.fullmatch("[0-9]{1,9}", key):
        raise Refused(f"a storage has the key {shown(key, 40)}, which is no number")
    span = members.get(f"{root}data/{key}")
    if span is None:
        raise Refused(f"the ZIP file has no member {shown(root)}data/{key}")
    if count * item_size(tag.dtype) != span.size:
        raise Refused(f"storage {key} is said to hold {count} {tag.dtype}, its member has {span.size} bytes")
    return Storage(tag.dtype, span)


def read_zip_checkpoint(source):
    """A .pth file since PyTorch 1.6: what torch.save was given, with a Tensor for each tensor."""
    members = read_archive(source)
    roots = [name[:-len("data.pkl")] for name in members if re.fullmatch("[^/]+/data\\.pkl", name)]
    if len(roots) != 1:
        raise Refused(f"is a ZIP file, but not of torch.save: it has {len(roots)} members called */data.pkl, not one")
    pickle, order = members[roots[0] + "data.pkl"], members.get(roots[0] + "byteorder")
    if pickle.size > MAX_PICKLE:
        raise Refused(f"has a data.pkl of {pickle.size} bytes, more than the {MAX_PICKLE} that are read")
    if order and (order.size != len("little") or order.read() != b"little"):
        raise Refused("was saved on a big-endian machine, which is not read")
    return Pickle(pickle.read(), lambda identity: load_storage(identity, members, roots[0])).run()


def state_dict(saved):
    """The names and tensors in what torch.save was given: a state dict, or a dict with one as a member."""
    if type(saved) is dict:
        saved = next((saved[key] for key in ("state_dict", "model") if type(saved.get(key)) is dict), saved)
    if type(saved) is not dict:
        raise Refused("holds no state dict")
    others = [name for name, value in saved.items() if type(value) is not Tensor]
    if others:
        raise Refused(f"holds no state dict: {listed(others)} in it is no tensor")
    return saved


# ---- Reading: safetensors ----

SAFETENSORS_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I64": "int64"}


def read_safetensors(source):
    """The names and tensors of a .safetensors file: u64 header size, JSON header, numbers without hole or overlap."""
    size = int.from_bytes(source.read(0, 8), "little")
    if size > min(source.size - 8, MAX_INDEX):
        raise Refused(f"has a safetensors header of {size} bytes in a file of {source.size}, more than is read")
    entries = parse_json(source.read(8, size))
    entries.pop("__metadata__", None)
    numbers = Span(source, 8 + size, source.size - 8 - size)
    tensors, ends = {}, []
    for name, entry in entries.items():
        tensors[name], begin, end = safetensors_entry(name, entry, numbers)
        ends.append((begin, end))
    check_tiling(sorted(ends), numbers.size)
    return tensors


def parse_json(data):
    """A JSON object of strings and whole numbers, without duplicate names."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=unique_dict, parse_int=parse_size,
                           parse_float=refuse_number, parse_constant=refuse_number)
    except (ValueError, RecursionError):  # ValueError: not UTF-8, or not JSON
        raise Refused("has a safetensors header that is no valid JSON") from None
    if type(value) is not dict:
        raise Refused("has a safetensors header that is no JSON object")
    return value


def unique_dict(pairs):
    result = dict(pairs)
    if len(result) != len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(a for a, b in zip(names, names[1:]) if a == b)
        raise Refused(f"has a safetensors header that names {shown(twice)} twice")
    return result


def parse_size(text):
    if len(text) > 19:  # before int(), which takes the square of the length
        refuse_number(text)
    return int(text)


def refuse_number(text):
    raise Refused(f"has a safetensors header with the number {shown(text, 30)}, which is no size")


def safetensors_entry(name, entry, numbers):
    """One tensor, and the first and the last byte that it takes."""
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"describes {shown(name)} by other things than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in SAFETENSORS_DTYPES:
        raise Refused(f"{shown(name)} has the dtype {shown(dtype, 40)}, which is not read")
    dtype = SAFETENSORS_DTYPES[dtype]
    if any(type(value) is not list or not all(map(is_size, value)) for value in (shape, offsets)) or len(offsets) != 2:
        raise Refused(f"{shown(name)} has a shape or data_offsets that are not sizes")
    begin, end = offsets
    if not begin <= end <= numbers.size:
        raise Refused(f"{shown(name)} lies outside the file: bytes {begin} to {end} of {numbers.size}")
    if len(shape) > MAX_DIMENSIONS or math.prod(shape) * item_size(dtype) != end - begin:
        raise Refused(f"{shown(name)} is {shown(shape_text(shape))} {dtype}, but has {end - begin} bytes")
    strides = [math.prod(shape[axis + 1:]) for axis in range(len(shape))]
    span = Span(numbers.source, numbers.position + begin, end - begin)
    return view(dtype, shape, strides, span, 0), begin, end


def check_tiling(ranges, size):
    """Every byte belongs to one tensor."""
    at = 0
    for begin, end in ranges:
        if begin != at:
            raise Refused(f"has tensors that {'overlap' if begin < at else 'leave a hole'} at byte {min(begin, at)}")
        at = end
    if at != size:
        raise Refused(f"has {size - at} bytes behind its last tensor")


# ---- Reading: any checkpoint ----

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # a pickle of 0x1950a86a20f9469cfc6c


def read_checkpoint(source):
    """The names and tensors of a checkpoint, whose kind its first bytes say: name -> Tensor."""
    start = source.read(0, min(16, source.size))
    if start.startswith(b"PK"):
        tensors = state_dict(read_zip_checkpoint(source))
    elif start[8:9] == b"{":
        tensors = read_safetensors(source)
    elif start.startswith(LEGACY_MAGIC):
        raise Refused("was saved by PyTorch before 1.6 (or without its ZIP format), which is not read yet: load it and "
                      "save it again with torch.save")
    else:
        raise Refused("is neither a ZIP file of torch.save (.pth) nor a .safetensors file" if start else "is empty")
    if tensors and all(name.startswith("module.") for name in tensors):  # nn.DataParallel's
        tensors = {name[len("module."):]: tensor for name, tensor in tensors.items()}
    return tensors


# ---- Recognition ----

BASIC, BOTTLENECK = 1, 2  # as in the model file
IMAGENET_CLASSES = 1000
RELATIVES = (
    (r"conv1\.[0-9]+\..*", "a deep stem"),
    (r"layer[0-9]+\.[0-9]+\.se\..*", "squeeze-and-excitation"),
    (r"layer[0-9]+\.[0-9]+\.downsample\.2\..*", "an average-pool shortcut"),
)


@dataclass(frozen=True)
class Network:
    """What the header of a model file says about a network; the names and the rule for widths are torchvision's."""
    block: int
    blocks: tuple  # in each stage
    base_width: int = 64
    width_per_group: int = 64
    in_channels: int = 3
    classes: int = IMAGENET_CLASSES

    @property
    def architecture(self):
        built = (self.block, self.blocks) if (self.base_width, self.width_per_group) == (64, 64) else None
        return next((name for name, known in PRESETS.items() if known == built), "resnet")

    def __str__(self):
        kind = "basic" if self.block == BASIC else "bottleneck"
        group = f", width per group {self.width_per_group}" if self.width_per_group != 64 else ""
        return f"{self.architecture} ({kind} blocks {'-'.join(map(str, self.blocks))}, width {self.base_width}{group})"


PRESETS = {
    "resnet18": (BASIC, (2, 2, 2, 2)),
    "resnet34": (BASIC, (3, 4, 6, 3)),
    "resnet50": (BOTTLENECK, (3, 4, 6, 3)),
    "resnet101": (BOTTLENECK, (3, 4, 23, 3)),
    "resnet152": (BOTTLENECK, (3, 8, 36, 3)),
}


def convolutions(network):
    """(convolution, batch normalisation, shape [out, in, kernel, kernel]) in the order of the model file."""
    channels = network.base_width
    yield "conv1", "bn1", (channels, network.in_channels, 7, 7)
    for stage, blocks in enumerate(network.blocks):
        planes = network.base_width << stage
        for block in range(blocks):
            shapes = block_shapes(network, channels, planes)
            at, outputs = f"layer{stage + 1}.{block}", shapes[-1][0]
            if channels != outputs or (stage > 0 and block == 0):
                yield f"{at}.downsample.0", f"{at}.downsample.1", (outputs, channels, 1, 1)
            for k, (out, into, kernel) in enumerate(shapes, 1):
                yield f"{at}.conv{k}", f"{at}.bn{k}", (out, into, kernel, kernel)
            channels = outputs


def block_shapes(network, channels, planes):
    """(out, in, kernel) of the convolutions of one block's branch."""
    if network.block == BASIC:
        return (planes, channels, 3), (planes, planes, 3)
    inner = planes * network.width_per_group // 64
    return (inner, channels, 1), (inner, inner, 3), (4 * planes, inner, 1)


def expected_tensors(network):
    """(name, shape) of every tensor in the order of the model file."""
    for convolution, norm, shape in convolutions(network):
        yield f"{convolution}.weight", shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{norm}.{part}", shape[:1]
    channels = (network.base_width << (len(network.blocks) - 1)) * (1 if network.block == BASIC else 4)
    yield "fc.weight", (network.classes, channels)
    yield "fc.bias", (network.classes,)


def parameter_count(network):
    return sum(math.prod(shape) for name, shape in expected_tensors(network) if ".running_" not in name)


def recognise(tensors):
    """The Network whose tensors these are, every name and shape checked. `num_batches_tracked` is ignored."""
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".num_batches_tracked")}
    refuse_relatives(tensors)
    stages = [int(number) for number in matches(tensors, r"layer([1-4])\.[0-9]+\..*")]
    if not stages or "conv1.weight" not in tensors and "bn1.weight" not in tensors:
        raise Refused(f"is no ResNet with torchvision's names; it begins with {listed(sorted(tensors)) or 'nothing'}")
    stem = known_shape(tensors, "conv1.weight", 4)
    network = Network(
        block=BOTTLENECK if matches(tensors, r"layer[1-4]\.[0-9]+\.((?:conv|bn)3)\..*") else BASIC,
        blocks=tuple(count_blocks(tensors, stage) for stage in range(1, max(stages) + 1)),
        base_width=stem[0], in_channels=stem[1], classes=known_shape(tensors, "fc.weight", 2)[0])
    if network.block == BOTTLENECK:
        network = with_inner_width(network, tensors)
    check_ranges(network)
    check_tensors(tensors, network)
    return network


def matches(tensors, pattern):
    """What the group of a pattern is in the names that match it entirely."""
    return [found[1] for found in (re.fullmatch(pattern, name, re.ASCII) for name in tensors) if found]


def refuse_relatives(tensors):
    """Name the members of the family that are not supported yet."""
    for pattern, what in RELATIVES:
        found = matches(tensors, f"({pattern})")
        if found:
            raise Refused(f"has {what} ({shown(found[0])}), which is not supported yet")
    stem, conv1, conv2 = (tensors[name].shape if name in tensors else () for name in (
        "conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"))
    if stem[2:] == (3, 3):
        raise Refused("has a 3x3 stem (conv1.weight), as CIFAR's networks have, which is not supported yet")
    if len(conv1) == len(conv2) == 4 and 0 < conv2[1] < conv1[0] == conv2[0] and conv1[0] % conv2[1] == 0:
        raise Refused(f"has 3x3 convolutions in {conv1[0] // conv2[1]} groups (layer1.0.conv2.weight), as ResNeXt has, "
                      "which are not supported yet")


def known_shape(tensors, name, dimensions):
    """The shape of a tensor that says what the network is."""
    if name not in tensors:
        raise Refused(f"lacks {name}")
    shape = tensors[name].shape
    if len(shape) != dimensions or 0 in shape:
        raise Refused(f"{name} has the shape {shape_text(shape)}, expected {dimensions} dimensions")
    return shape


def count_blocks(tensors, stage):
    """One more than the highest block of a stage; where blocks are missing below it, check_tensors names them."""
    highest = max((int(number) for number in matches(tensors, rf"layer{stage}\.([0-9]{{1,5}})\..*")), default=0)
    if highest >= 1024:
        raise Refused(f"has a block layer{stage}.{highest}, more than the 1024 a stage can have")
    return highest + 1


def with_inner_width(network, tensors):
    """The network with the smallest width_per_group that gives the last stage's inner width, and so all of them: they
    are that one halved, rounded down each time, whatever the width_per_group."""
    stage = len(network.blocks)
    inner = known_shape(tensors, f"layer{stage}.0.conv1.weight", 4)[0]
    planes = network.base_width << (stage - 1)
    return replace(network, width_per_group=-(-inner * 64 // planes))


def check_ranges(network):
    """The limits of the model file."""
    for name, limit in (("base_width", 4096), ("width_per_group", 4096), ("in_channels", 16), ("classes", 1 << 20)):
        number = getattr(network, name)
        if number > limit:
            raise Refused(f"has {number} {name.replace('_', ' ')}, more than the {limit} that a model file can have")


def check_tensors(tensors, network):
    """Refuse every tensor that is missing, is not of the network, or has another shape or type than it asks for."""
    expected = dict(expected_tensors(network))
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    wrong = [f"{name} ({tensors[name].dtype} {shape_text(tensors[name].shape)}, expected {shape_text(shape)})"
             for name, shape in expected.items()
             if name in tensors and (tensors[name].shape != shape or tensors[name].dtype == "int64")]
    faults = [f"{len(names)} {what}: {listed(names)}" for what, names in (
        ("missing", missing), ("unexpected", unexpected), ("of a wrong shape or type", wrong)) if names]
    if faults:
        raise Refused(f"is no complete {network}: tensors {'; '.join(faults)}")


# ---- CRC-32C ----
#
# A CRC register is 32 bits, and what a zero byte does to it is linear over GF(2). So the register after some bytes A, B
# of equal length is: the register after A, moved past as many zero bytes as B has, xor the register after B. Read as
# 32-bit words that holds for the data itself too: the first half, each word moved past half the length, xor the second
# half is data of half the length with the same CRC. Folding until one word is left takes one pass of table look-ups
# over whole arrays, and no loop over bytes.

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bit-reversed
FOLD = 1 << 20  # bytes folded at once: the arrays stay in the cache


def past_zero_byte(register):
    for _ in range(8):
        register = (register >> 1) ^ (POLYNOMIAL if register & 1 else 0)
    return register


@functools.lru_cache(maxsize=None)
def past_zeros(power):
    """What 2**power zero bytes do to a register, as two tables: of its lower 16 bits and of its upper ones."""
    bits = np.uint32(1) << np.arange(32, dtype="<u4")
    images = (np.array([past_zero_byte(int(bit)) for bit in bits], "<u4") if power == 0 else
              moved(past_zeros(power - 1), moved(past_zeros(power - 1), bits)))
    return xor_table(images[:16]), xor_table(images[16:])


def xor_table(images):
    """For every 16-bit number the xor of its bits' images."""
    table = np.zeros(1, "<u4")
    for image in images:
        table = np.concatenate([table, table ^ image])
    return table


def moved(tables, registers):
    lower, upper = tables
    return np.take(lower, registers & 0xFFFF) ^ np.take(upper, registers >> 16)


def folded(data):
    """The register after at most FOLD bytes, from zero."""
    count = 1 << max(0, (len(data) - 1) // 4).bit_length()
    words = np.zeros(count, "<u4")
    words.view("u1")[4 * count - len(data):] = data  # zeros in front leave a zero register as it is
    while count > 1:
        count //= 2
        words = moved(past_zeros((4 * count).bit_length() - 1), words[:count]) ^ words[count:]
    return moved(past_zeros(2), words)


def crc32c(data, crc=0):
    """CRC-32C of bytes; `crc` is that of the bytes before them."""
    data = np.frombuffer(data, "u1")
    register = np.array([crc ^ 0xFFFFFFFF], "<u4")
    for start in range(0, len(data), FOLD):
        part = data[start:start + FOLD]
        for power in range(FOLD.bit_length()):
            if len(part) >> power & 1:
                register = moved(past_zeros(power), register)
        register = register ^ folded(part)
    return int(register[0]) ^ 0xFFFFFFFF


# ---- Writing ----

MAGIC = b"\x8bRNT\r\n\x1a\n"
HEADER = struct.Struct("<8sIIQII8B4I8If3I24x16f16f")
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass
class Preprocess:
    resize: int
    crop: int
    interpolation: str
    mean: list  # of each input channel
    std: list


def aligned(size):
    return -(-size // 64) * 64


def padding(size):
    return bytes(aligned(size) - size)


def file_size(network, labels):
    tensors = sum(aligned(4 * math.prod(shape)) for _, shape in expected_tensors(network))
    return aligned(HEADER.size + len(labels)) + tensors


def header(network, preprocess, labels, payload_crc):
    """The 256 bytes in front, as FORMAT.md lists them."""
    kinds = (network.block, 0, 0, 0, 0, 0, 0, INTERPOLATIONS.index(preprocess.interpolation))
    blocks = network.blocks + (0,) * (4 - len(network.blocks))
    unused = [0.0] * (16 - network.in_channels)

    def packed(own_crc):
        return HEADER.pack(
            MAGIC, 1, own_crc, file_size(network, labels), payload_crc, 0, *kinds, *blocks, network.base_width, 1,
            network.width_per_group, 0, network.in_channels, preprocess.crop, preprocess.crop, network.classes, 1e-5,
            preprocess.resize, len(labels), 0, *preprocess.mean, *unused, *preprocess.std, *unused)
    return packed(crc32c(packed(0)))


def payload(network, labels, tensors):
    """Everything behind the header, piece by piece; one tensor at a time is in memory."""
    yield labels + padding(HEADER.size + len(labels))
    for name, _ in expected_tensors(network):
        try:
            values = tensors[name].values()
        except Refused as error:
            raise Refused(f"{name}: {error}") from None
        check_values(name, values)
        yield values.reshape(-1).view("u1")
        yield padding(values.nbytes)


def check_values(name, values):
    if not np.isfinite(values).all():
        raise Refused(f"{name} holds numbers that are not finite in float32 (NaN or infinite)")
    if name.endswith(".running_var") and (values < 0).any():
        raise Refused(f"{name} holds a negative variance")


def write_model(path, network, preprocess, labels, tensors):
    """Write a model file in one step: it is there complete, or what was there before still is."""
    size = file_size(network, labels)
    if size > MAX_MODEL:
        raise Refused(f"would make a model file of {size} bytes, more than the {MAX_MODEL} that are allowed")
    path = os.path.realpath(path)  # behind a symbolic link, which stays one
    temporary = os.path.join(os.path.dirname(path), f".convert-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(bytes(HEADER.size))
            crc = 0
            for piece in payload(network, labels, tensors):
                crc = crc32c(piece, crc)
                file.write(piece)
            file.seek(0)
            file.write(header(network, preprocess, labels, crc))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        remove_quietly(temporary)
        if isinstance(error, OSError):
            raise Failure(f"{shown(path)}: cannot be written: {error.strerror}") from None
        raise
    return size


def remove_quietly(path):
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never made, or the reason why it cannot go is being reported already


# ---- Labels and preprocessing ----

IMAGENET_LABELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models", "imagenet_classes.txt")


def read_labels(path, classes):
    """The label block from a text file of one label a line; the last line feed may be missing."""
    try:
        with Source(path, MAX_LABELS) as source:
            text = source.read(0, source.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misuse(f"{shown(path)}: is not UTF-8") from None
    except Refused as error:
        raise Misuse(f"{shown(path)}: {error}") from None
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if len(lines) != classes:
        raise Misuse(f"{shown(path)}: has {len(lines)} labels, the network has {classes} classes")
    for number, line in enumerate(lines, 1):
        if not line or re.search("[\0-\x1f\x7f-\x9f]", line):
            raise Misuse(f"{shown(path)}: line {number} is empty or has a control character")
    return "".join(line + "\n" for line in lines).encode()


def choose_labels(asked, classes):
    """The label block, and the file that it came from."""
    if asked is None and (classes != IMAGENET_CLASSES or not os.path.exists(IMAGENET_LABELS)):
        return b"", "no labels"
    path = asked or IMAGENET_LABELS
    return read_labels(path, classes), f"labels of {shown(os.path.basename(path))}"


def choose_preprocess(options, channels):
    """torchvision's preset with the options' changes; ImageNet's mean and std mean nothing to other channels."""
    rgb = channels == 3
    mean = options.mean or ([0.485, 0.456, 0.406] if rgb else [0.0] * channels)
    std = options.std or ([0.229, 0.224, 0.225] if rgb else [1.0] * channels)
    for name, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise Misuse(f"{name} has {len(values)} numbers, the network has {channels} input channels")
    return Preprocess(options.resize, options.crop, options.interpolation, mean, std)


# ---- The command ----

class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Misuse(f"{shown(message)} (see --help)")


def whole_number(low, high):
    def parse(text):
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is no whole number from {low} to {high}")
        return int(text)
    return parse


def numbers(positive):
    """A parser of comma-separated numbers that float32 can hold."""
    def parse(text):
        try:
            values = [struct.unpack("<f", struct.pack("<f", float(part)))[0] for part in text.split(",")]
        except (ValueError, OverflowError):
            values = []
        if not values or not all(math.isfinite(v) and (v > 0 or not positive) for v in values):
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is no list of {'positive ' * positive}numbers")
        return values
    return parse


def parse_options(arguments):
    parser = Parser(prog="convert.py", description=__doc__.split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a .pth of torch.save or a .safetensors file")
    parser.add_argument("-o", "--output", metavar="MODEL", required=True, help="the model file to write")
    parser.add_argument("--labels", metavar="FILE",
                        help="class names, one a line (default: ImageNet's where there are 1000 classes)")
    parser.add_argument("--resize", metavar="N", type=whole_number(0, 16384), default=256,
                        help="short side in pixels before the crop; 0: no resize (default: %(default)s)")
    parser.add_argument("--crop", metavar="N", type=whole_number(1, 16384), default=224,
                        help="height and width of the network's input in pixels (default: %(default)s)")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS, default="bilinear",
                        help="of the resize (default: %(default)s)")
    parser.add_argument("--mean", metavar="R,G,B", type=numbers(positive=False), help="(default: ImageNet's)")
    parser.add_argument("--std", metavar="R,G,B", type=numbers(positive=True), help="(default: ImageNet's)")
    parser.add_argument("--arch", metavar="NAME", choices=PRESETS, help=f"refuse any other than: {', '.join(PRESETS)}")
    return parser.parse_args(arguments)


def check_output(path, source):
    """Renaming would replace a device, and must not replace the checkpoint."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Failure(f"{shown(path)}: cannot be written: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Failure(f"{shown(path)}: exists and is not a regular file")
    if (status.st_dev, status.st_ino) == source.identity:
        raise Misuse(f"{shown(path)}: is the checkpoint itself")


def convert(options):
    """Do what the options ask for; returns the report."""
    with Source(options.checkpoint, MAX_CHECKPOINT) as source:
        check_output(options.output, source)
        tensors = read_checkpoint(source)
        network = recognise(tensors)
        if options.arch and network.architecture != options.arch:
            raise Refused(f"is {network}, not {options.arch}")
        preprocess = choose_preprocess(options, network.in_channels)
        labels, origin = choose_labels(options.labels, network.classes)
        size = write_model(options.output, network, preprocess, labels, tensors)
    return report(options, network, preprocess, origin, size)


def report(options, network, preprocess, labels, size):
    resize = f"resize {preprocess.resize} {preprocess.interpolation}" if preprocess.resize else "no resize"
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in (preprocess.mean, preprocess.std))
    return "\n".join((
        f"{shown(options.output)}: {size:,} bytes",
        f"architecture   {network}",
        f"parameters     {parameter_count(network):,}",
        f"input          {network.in_channels} x {preprocess.crop} x {preprocess.crop}",
        f"classes        {network.classes}, {labels}",
        f"preprocessing  {resize}, crop {preprocess.crop}, mean {mean}, std {std}"))


def discard_stdout():
    """Keep Python from trying again, and complaining, when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments=None):
    """Run the command; returns its exit status."""
    try:
        options = parse_options(arguments)
        print(convert(options), flush=True)
        return 0
    except Refused as error:
        status, message = error.status, f"{shown(options.checkpoint)}: {error}"
    except Failure as error:
        status, message = error.status, error
    except MemoryError:
        status, message = Failure.status, "out of memory"
    except OSError as error:  # from stdout: the others are caught where their file is known
        discard_stdout()
        status, message = Failure.status, f"the report cannot be written: {error.strerror}"
    print(f"convert: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    if sys.stdout:  # None where it is closed
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not fit the terminal's encoding
    sys.exit(main())
