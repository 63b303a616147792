"""Reads any checkpoint: its first bytes say which container it is."""
import contextlib

from .facts import Checkpoint
from .failure import Refused
from .keras import read_keras
from .onnx_file import read_graph
from .onnx_walk import read_network
from .safetensors import open_shards, read_safetensors
from .torch_files import LEGACY_MAGIC, read_legacy, read_zip, state_dict


@contextlib.contextmanager
def open_checkpoint(source):
    """The Checkpoint in a file; files that an index lists are open until the end."""
    start = source.read(0, min(16, source.size))
    if start.startswith(b"PK"):
        yield from_torch(read_zip(source), "ZIP of torch.save")
    elif start.startswith(LEGACY_MAGIC):
        yield from_torch(read_legacy(source), "legacy stream of torch.save")
    elif start[:1] == b"{" and 0 not in start[:8]:  # no size of a safetensors header is that large
        with open_shards(source) as tensors:
            yield Checkpoint(tensors, "safetensors in several files")
    elif start[8:9] == b"{":
        yield Checkpoint(read_safetensors(source), "safetensors")
    elif start.startswith(b"\x89HDF\r\n\x1a\n"):
        yield read_keras(source)
    elif start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42"):
        tensors, facts = read_network(read_graph(source))
        yield Checkpoint(tensors, "ONNX", facts)
    else:
        raise Refused("is not a checkpoint that is read: none of torch.save (.pth), safetensors, ONNX or Keras (.h5)"
                      if start else "is empty")


def from_torch(saved, container):
    tensors, path = state_dict(saved)
    return Checkpoint(tensors, f"{container}, its {'.'.join(path)}" if path else container)
