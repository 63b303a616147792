"""Writes a model file: models/FORMAT.md says what each byte is."""
import math
import os
import secrets
import struct

import numpy as np

from .crc32c import crc32c
from .failure import Failure, Refused, shown
from .network import expected_tensors
from .preprocessing import INTERPOLATIONS

MAX_MODEL = 1 << 30  # bytes
MAGIC = b"\x8bRNT\r\n\x1a\n"
HEADER = struct.Struct("<8sIIQII8B4I8If3I24x16f16f")


def aligned(size):
    return -(-size // 64) * 64


def padding(size):
    return bytes(aligned(size) - size)


def file_size(network, labels):
    tensors = sum(aligned(4 * math.prod(shape)) for _, shape in expected_tensors(network))
    return aligned(HEADER.size + len(labels)) + tensors


def header(network, preprocess, labels, payload_crc):
    """The 256 bytes in front, as FORMAT.md lists them."""
    kinds = (network.block, network.stride_at, network.stem, network.shortcut, network.attention, network.head, 0,
             INTERPOLATIONS.index(preprocess.interpolation))
    blocks = network.blocks + (0,) * (4 - len(network.blocks))
    unused = [0.0] * (16 - network.in_channels)

    def packed(own_crc):
        return HEADER.pack(
            MAGIC, 1, own_crc, file_size(network, labels), payload_crc, 0, *kinds, *blocks, network.base_width,
            network.groups, network.width_per_group, network.output_stride, network.in_channels, *preprocess.size,
            network.classes, network.bn_epsilon, preprocess.resize, len(labels), network.attention_width,
            *preprocess.mean, *unused, *preprocess.std, *unused)
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


def allowed_size(network, labels):
    size = file_size(network, labels)
    if size > MAX_MODEL:
        raise Refused(f"would make a model file of {size} bytes, more than the {MAX_MODEL} that are allowed")
    return size


def try_model(network, labels, tensors):
    """Do all but write; returns the size in bytes."""
    for _ in payload(network, labels, tensors):
        pass
    return allowed_size(network, labels)


def write_model(path, network, preprocess, labels, tensors):
    """Write a model file in one step: it is there complete, or what was there before still is."""
    size = allowed_size(network, labels)
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
