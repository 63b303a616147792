"""The two containers of torch.save: the ZIP archive, and the stream of pickles that came before it."""
import re

from .failure import Refused, listed, shown
from .files import Span
from .tensors import Tensor, item_size
from .unpickle import MAX_PICKLE, Pickle, Storage, Tag
from .zip_archive import read_archive

# A training script keeps the averaged weights beside those it trains, and means them to be used.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")
MAX_WRAPPERS = 3
LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # a pickle of 0x1950a86a20f9469cfc6c
LEGACY_PROTOCOL = 1001


def parse_persistent_id(identity, fields):
    """dtype, key and number of elements of ('storage', type, key, location, number[, view])."""
    kinds = [str, Tag, str, str, int] + [type(None)] * (fields == 6)
    if type(identity) is not tuple or list(map(type, identity)) != kinds:
        raise Refused("a persistent id is not one of torch.save's, or of a storage that is part of another")
    kind, tag, key, _, count = identity[:5]
    if kind != "storage" or not tag.dtype:
        raise Refused("a persistent id names no storage")
    if not re.fullmatch("[0-9]{1,20}", key, re.ASCII):
        raise Refused(f"a storage has the key {shown(key, 40)}, which is no number")
    return tag.dtype, key, count


# ---- ZIP ----

def load_member(identity, members, root):
    """The Storage of a persistent id: member <root>/data/<key> of the archive."""
    dtype, key, count = parse_persistent_id(identity, 5)
    span = members.get(f"{root}data/{key}")
    if span is None:
        raise Refused(f"the ZIP file has no member {shown(root)}data/{key}")
    if count * item_size(dtype) != span.size:
        raise Refused(f"storage {key} is said to hold {count} {dtype}, its member has {span.size} bytes")
    return Storage(dtype, span)


def read_zip(source):
    """A .pth file since PyTorch 1.6: what torch.save was given, with a Tensor for each tensor."""
    members = read_archive(source)
    roots = [name[:-len("data.pkl")] for name in members if re.fullmatch("[^/]+/data\\.pkl", name)]
    if len(roots) != 1:
        raise Refused(f"is a ZIP file, but not of torch.save: it has {len(roots)} members called */data.pkl, not one")
    code, order = members[roots[0] + "data.pkl"], members.get(roots[0] + "byteorder")
    if code.size > MAX_PICKLE:
        raise Refused(f"has a data.pkl of {code.size} bytes, more than the {MAX_PICKLE} that are read")
    if order and (order.size != len("little") or order.read() != b"little"):
        raise Refused("was saved on a big-endian machine, which is not read")
    pickle = Pickle(code.read(), lambda identity: load_member(identity, members, roots[0]), "data.pkl")
    saved = pickle.run()
    if pickle.at != code.size:
        raise Refused("data.pkl does not end with its one object")
    return saved


# ---- Legacy ----

class LegacyStorages:
    """The storages of a legacy file, which are named before it is known where they are."""

    def __init__(self, source):
        self.source, self.known = source, {}

    def load(self, identity):
        """The Storage of a persistent id, for now of the right size at the wrong place."""
        dtype, key, count = parse_persistent_id(identity, 6)
        if not 0 <= count * item_size(dtype) <= self.source.size:
            raise Refused(f"storage {key} is said to hold {count} {dtype} in a file of {self.source.size} bytes")
        storage = self.known.setdefault(key, Storage(dtype, Span(self.source, 0, count * item_size(dtype))))
        if (storage.dtype, storage.span.size) != (dtype, count * item_size(dtype)):
            raise Refused(f"storage {key} is described in two ways")
        return storage

    def place(self, keys, at):
        """Find the storages, which follow each other as a count and the numbers, to the end of the file."""
        if type(keys) is not list or sorted(map(str, keys)) != sorted(self.known):
            raise Refused("lists other storages than its tensors have")
        for key in keys:
            storage = self.known[str(key)]
            count = int.from_bytes(self.source.read(at, 8), "little")
            if count * item_size(storage.dtype) != storage.span.size:
                raise Refused(f"storage {key} holds {count} numbers, expected {storage.span.size} bytes of them")
            storage.span.position = at + 8
            at += 8 + storage.span.size
            if at > self.source.size:
                raise Refused(f"is truncated: storage {key} ends at byte {at}, the file has {self.source.size}")
        if at != self.source.size:
            raise Refused(f"has {self.source.size - at} bytes behind its last storage")


class PickleStream:
    """Pickles that follow each other in a file."""

    def __init__(self, source):
        self.source, self.at = source, 0

    def next(self, name, load_storage=None):
        window = min(self.source.size - self.at, MAX_PICKLE)
        pickle = Pickle(self.source.read(self.at, window), load_storage or refuse_storage, name)
        result = pickle.run()
        self.at += pickle.at
        return result


def refuse_storage(_):
    raise Refused("a persistent id stands where no tensor can be")


def read_legacy(source):
    """A .pth or .th file of PyTorch 0.1.10 to 1.5: what torch.save was given, with a Tensor for each tensor."""
    stream, storages = PickleStream(source), LegacyStorages(source)
    stream.at = len(LEGACY_MAGIC)
    protocol, system = stream.next("the protocol"), stream.next("the system's description")
    if protocol != LEGACY_PROTOCOL:
        raise Refused(f"has the legacy protocol {shown(protocol, 40)}, expected {LEGACY_PROTOCOL}")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Refused("was saved on a big-endian machine, which is not read")
    saved = stream.next("the object", storages.load)
    storages.place(stream.next("the list of storages"), stream.at)
    return saved


# ---- What was saved ----

def state_dict(saved):
    """The names and tensors in what torch.save was given, and the names of the dicts that they were found in."""
    path = []
    while type(saved) is dict and len(path) < MAX_WRAPPERS:
        key = next((key for key in WRAPPERS if type(saved.get(key)) is dict), None)
        if key is None:
            break
        saved = saved[key]
        path.append(key)
    if type(saved) is not dict:
        raise Refused("holds no state dict")
    others = [name for name, value in saved.items() if type(name) is not str or type(value) is not Tensor]
    if others:
        raise Refused(f"holds no state dict: {listed(others)} in it is no tensor")
    return saved, path
