"""safetensors: one file, or several with an index."""
import contextlib
import math
import os
import re

from .failure import Refused, listed, shown
from .files import MAX_CHECKPOINT, MAX_INDEX, Source, Span
from .strict_json import parse_json
from .tensors import MAX_DIMENSIONS, contiguous, is_size, item_size, shape_text

MAX_SHARDS = 64

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I64": "int64",
          "I32": "int32", "U8": "uint8", "BOOL": "uint8"}


def read_safetensors(source):
    """The names and tensors of a .safetensors file: u64 header size, JSON header, numbers without hole or overlap."""
    size = int.from_bytes(source.read(0, 8), "little")
    if size > min(source.size - 8, MAX_INDEX):
        raise Refused(f"has a safetensors header of {size} bytes in a file of {source.size}, more than is read")
    entries = parse_json(source.read(8, size), "a safetensors header")
    entries.pop("__metadata__", None)
    numbers = Span(source, 8 + size, source.size - 8 - size)
    tensors, ends = {}, []
    for name, entry in entries.items():
        tensors[name], begin, end = safetensors_entry(name, entry, numbers)
        ends.append((begin, end))
    check_tiling(sorted(ends), numbers.size)
    return tensors


def safetensors_entry(name, entry, numbers):
    """One tensor, and the first and the last byte that it takes."""
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"describes {shown(name)} by other things than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPES:
        raise Refused(f"{shown(name)} has the dtype {shown(dtype, 40)}, which is not read")
    dtype = DTYPES[dtype]
    if any(type(value) is not list or not all(map(is_size, value)) for value in (shape, offsets)) or len(offsets) != 2:
        raise Refused(f"{shown(name)} has a shape or data_offsets that are not sizes")
    begin, end = offsets
    if not begin <= end <= numbers.size:
        raise Refused(f"{shown(name)} lies outside the file: bytes {begin} to {end} of {numbers.size}")
    if len(shape) > MAX_DIMENSIONS or math.prod(shape) * item_size(dtype) != end - begin:
        raise Refused(f"{shown(name)} is {shown(shape_text(shape))} {dtype}, but has {end - begin} bytes")
    return contiguous(dtype, shape, Span(numbers.source, numbers.position + begin, end - begin)), begin, end


def check_tiling(ranges, size):
    """Every byte belongs to one tensor."""
    at = 0
    for begin, end in ranges:
        if begin != at:
            raise Refused(f"has tensors that {'overlap' if begin < at else 'leave a hole'} at byte {min(begin, at)}")
        at = end
    if at != size:
        raise Refused(f"has {size - at} bytes behind its last tensor")


@contextlib.contextmanager
def open_shards(source):
    """The names and tensors of the files that an index (model.safetensors.index.json) lists, open until the end."""
    if source.size > MAX_INDEX:
        raise Refused(f"has an index of {source.size} bytes, more than the {MAX_INDEX} that are read")
    index = parse_json(source.read(0, source.size), "an index", fractions=True).get("weight_map")
    if type(index) is not dict or not all(type(shard) is str for shard in index.values()):
        raise Refused("has an index without a weight_map of names to files")
    shards = sorted(set(index.values()))
    if len(shards) > MAX_SHARDS:
        raise Refused(f"has an index of {len(shards)} files, more than the {MAX_SHARDS} that are read")
    for shard in shards:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.safetensors", shard):
            raise Refused(f"has an index that lists {shown(shard)}, which is no name of a .safetensors file beside it")
    with contextlib.ExitStack() as stack:
        tensors, left = {}, MAX_CHECKPOINT
        for shard in shards:
            part = stack.enter_context(open_shard(source.path, shard, left))
            left -= part.size
            tensors.update(read_shard(part, shard, {name for name, file in index.items() if file == shard}))
        yield tensors


def open_shard(index_path, shard, limit):
    try:
        return Source(os.path.join(os.path.dirname(index_path), shard), limit)
    except Refused as error:
        raise Refused(f"{shard}: {error}") from None


def read_shard(source, shard, expected):
    try:
        tensors = read_safetensors(source)
    except Refused as error:
        raise Refused(f"{shard}: {error}") from None
    different = sorted(expected ^ set(tensors))
    if different:
        raise Refused(f"{shard}: the index and the file do not agree on {listed(different)}")
    return tensors
