"""Makes checkpoints byte by byte, for the tests of tools/convert.py: no framework is needed, any part can be wrong."""
import codecs
import contextlib
import io
import json
import os
import re
import struct
import sys
import tempfile
import unittest
import zlib
from unittest import mock

try:
    import numpy as np
except ImportError:
    print("skipped: NumPy is not installed for this Python")
    sys.exit(77)

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
import convert  # noqa: E402


# ---- A tiny network, told again from torchvision's and timm's source ----

NORM = ("weight", "bias", "running_mean", "running_var")


def names_and_shapes(bottleneck=False, blocks=(1, 1), width=4, inner=4, channels=3, classes=3, groups=1, stem="7x7",
                     padded=False, attention=0):
    """(name, shape) of every tensor but num_batches_tracked, in the order in which the network runs.

    `inner` counts the channels of the first stage's 3x3 in a bottleneck, `attention` the least that is squeezed to.
    """
    rows = []

    def convolution(conv, norm, *shape):
        rows.append((conv + ".weight", shape))
        rows.extend((f"{norm}.{part}", shape[:1]) for part in NORM)

    if stem in ("7x7", "3x3"):
        convolution("conv1", "bn1", width, channels, int(stem[0]), int(stem[0]))
    else:
        first = width // 2 if stem == "deep" else 3 * width // 8
        convolution("conv1.0", "conv1.1", first, channels, 3, 3)
        convolution("conv1.3", "conv1.4", width // 2, first, 3, 3)
        convolution("conv1.6", "bn1", width, width // 2, 3, 3)
    last = width
    for stage, count in enumerate(blocks):
        planes, mid = width * 2 ** stage, inner * 2 ** stage
        out = 4 * planes if bottleneck else planes
        for block in range(count):
            at = f"layer{stage + 1}.{block}"
            if block == 0 and (stage > 0 or last != out) and not padded:
                convolution(f"{at}.downsample.0", f"{at}.downsample.1", out, last, 1, 1)
            if bottleneck:
                convolution(f"{at}.conv1", f"{at}.bn1", mid, last, 1, 1)
                convolution(f"{at}.conv2", f"{at}.bn2", mid, mid // groups, 3, 3)
                convolution(f"{at}.conv3", f"{at}.bn3", out, mid, 1, 1)
            else:
                convolution(f"{at}.conv1", f"{at}.bn1", planes, last, 3, 3)
                convolution(f"{at}.conv2", f"{at}.bn2", planes, planes, 3, 3)
            if attention:
                squeezed = max(attention, out // 16)
                rows.extend(((f"{at}.se.fc1.weight", (squeezed, out)), (f"{at}.se.fc1.bias", (squeezed,)),
                             (f"{at}.se.fc2.weight", (out, squeezed)), (f"{at}.se.fc2.bias", (out,))))
            last = out
    return rows + [("fc.weight", (classes, last)), ("fc.bias", (classes,))] * bool(classes)


def tiny(**kind):
    """name -> float32 array; every number can be held in bfloat16 and float16 too."""
    source = np.random.default_rng(1)
    return {name: (source.integers(1, 128, shape) / 64).astype("f4") for name, shape in names_and_shapes(**kind)}


# ---- Checkpoints, byte by byte ----

STORAGES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<u2": "BFloat16Storage", "<f8": "DoubleStorage",
            "<i8": "LongStorage"}


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value):
    return b"J" + struct.pack("<i", value)


def row(*items):
    return b"(" + b"".join(items) + b"t"


def sizes(values):
    return row(*map(number, values))


def name_of(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def storage(key, count, kind="FloatStorage"):
    return row(text("storage"), name_of("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


EMPTY_ORDERED_DICT = name_of("collections", "OrderedDict") + b")R"
REBUILD = name_of("torch._utils", "_rebuild_tensor_v2")


def tensor(held, offset, shape, strides, hooks=EMPTY_ORDERED_DICT):
    return REBUILD + row(held, number(offset), sizes(shape), sizes(strides), b"\x89", hooks) + b"R"


def element_strides(array):
    return [step // array.itemsize for step in array.strides]


def array_tensor(key, array):
    """A tensor, and the bytes of its storage; an array that is not contiguous stays so."""
    base = array if array.base is None else array.base
    offset = (array.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // array.itemsize
    kind = STORAGES[array.dtype.str]
    return tensor(storage(key, base.size, kind), offset, array.shape, element_strides(array)), base.tobytes("A")


class Zip:
    """A ZIP archive as torch.save writes them; a test may spoil its parts before bytes() puts them together."""

    def __init__(self, members):
        self.members = [{"name": name, "data": data, "flags": 0x808, "method": 0, "crc": zlib.crc32(data),
                         "size": len(data), "packed": len(data), "local_name": name, "local": None, "extra": b""}
                        for name, data in members]
        self.end = {}  # replaces fields of the end record, and with "zip64" those of the ZIP64 one
        self.front = b""

    def __getitem__(self, name):
        return next(member for member in self.members if member["name"] == name)

    def bytes(self):
        out, directory = self.front, b""
        for m in self.members:
            local = len(out) if m["local"] is None else m["local"]
            out += struct.pack("<4s5H3I2H", b"PK\3\4", 0, m["flags"], m["method"], 0, 0, 0, 0, 0,
                               len(m["local_name"]), 4) + m["local_name"] + b"FB\0\0" + m["data"]
            directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, m["flags"], m["method"], 0, 0, m["crc"],
                                     m["packed"], m["size"], len(m["name"]), len(m["extra"]), 0, 0, 0, 0, local)
            directory += m["name"] + m["extra"]
        end = {"count": len(self.members), "size": len(directory), "position": len(out), "disk": 0, "at": None}
        end64 = {**end, "at": len(out) + len(directory), **self.end.get("zip64", {})}
        end.update(self.end)
        out += directory
        out += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0, 45, 0, 0, end64["count"], end64["count"], end64["size"],
                           end64["position"])
        out += struct.pack("<4sIQI", b"PK\6\7", 0, end64["at"], 1)
        return out + struct.pack("<4s4H2IH", b"PK\5\6", end["disk"], 0, end["count"], end["count"], end["size"],
                                 end["position"], 0)


def archive(pickle, storages, checksums=True):
    """The Zip of a .pth from its pickle and its storages, key -> bytes."""
    result = Zip([(b"net/data.pkl", pickle), (b"net/version", b"3\n")] +
                 [(b"net/data/" + key.encode(), data) for key, data in storages.items()])
    for member in result.members:
        member["crc"] *= checksums
    return result


def state_pickle(arrays, replaced=None, front=b"}", back=b"", prefix=""):
    """The pickle of a state dict and its storages; `replaced` has other pickle code for some tensors."""
    code, storages = b"\x80\x02" + front + b"(", {}
    for key, (name, array) in enumerate(arrays.items()):
        own, storages[str(key)] = array_tensor(str(key), array)
        code += text(prefix + name) + (replaced or {}).get(name, own)
    return code + b"u" + back + b".", storages


def pth(arrays, **options):
    return archive(*state_pickle(arrays, **options)).bytes()


# ---- The format before PyTorch 1.6 ----

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
LEGACY_PROTOCOL = b"\x80\x02M\xe9\x03."
LEGACY_SYSTEM = b"\x80\x02}(" + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + b"\x88" + (
    text("type_sizes") + b"}" + text("int") + b"K\4su.")


def legacy_stream(pickle, storages, item_size=4, **replaced):
    """A legacy file of the pickle and the storages of an archive: its persistent ids get their sixth field, None."""
    parts = {"magic": LEGACY_MAGIC, "protocol": LEGACY_PROTOCOL, "system": LEGACY_SYSTEM,
             "object": re.sub(rb"(J....)tQ", rb"\1NtQ", pickle, flags=re.DOTALL),
             "keys": b"\x80\x02](" + b"".join(map(text, storages)) + b"e.",
             "data": b"".join(struct.pack("<q", len(data) // item_size) + data for data in storages.values()),
             **replaced}
    return b"".join(parts.values())


def legacy(arrays, **options):
    return legacy_stream(*state_pickle(arrays, **options))


SAFETENSORS = {"<f4": "F32", "<f2": "F16", "<u2": "BF16", "<f8": "F64", "<i8": "I64"}


def safetensors_header(arrays):
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        entries[name] = {"dtype": SAFETENSORS[array.dtype.str], "shape": list(array.shape),
                         "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    return entries


def safetensors_file(entries, data):
    raw = entries if type(entries) is bytes else json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def safetensors(arrays):
    return safetensors_file(safetensors_header(arrays), b"".join(array.tobytes() for array in arrays.values()))


def shard_index(weight_map):
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()


# ---- ONNX ----

def varint(value):
    value &= 2 ** 64 - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def proto(*fields):
    """A protobuf message of (number, value): an int, a float, a str, or the bytes of another message."""
    parts = []
    for number_, value in fields:
        if isinstance(value, int):
            parts += varint(number_ << 3), varint(value)
        elif isinstance(value, float):
            parts += varint(number_ << 3 | 5), struct.pack("<f", value)
        else:
            value = value.encode() if isinstance(value, str) else value
            parts += varint(number_ << 3 | 2), varint(len(value)), value
    return b"".join(parts)


def onnx_tensor(name, array, raw=True):
    array = np.asarray(array)
    code = {"<f4": 1, "<i8": 7, "<f2": 10, "<f8": 11}[array.dtype.str]
    return proto(*((1, side) for side in array.shape), (2, code), (8, name), (9 if raw else 4, array.tobytes()))


def onnx_node(op, inputs, outputs, attributes=None):
    """A NodeProto; an attribute is an int, a float, a str, a list of ints, or the bytes of a tensor."""
    fields = [(1, name) for name in inputs] + [(2, name) for name in outputs] + [(3, f"node.{outputs[0]}"), (4, op)]
    for name, value in (attributes or {}).items():
        kind, number_ = {float: (1, 2), int: (2, 3), str: (3, 4), bytes: (4, 5), list: (7, 8)}[type(value)]
        values = [(number_, v) for v in value] if type(value) is list else [(number_, value)]
        fields.append((5, proto((1, name), *values, (20, kind))))
    return proto(*fields)


def onnx_value(name, dimensions):
    sides = [proto((1, side)) if isinstance(side, int) else proto((2, side)) for side in dimensions]
    return proto((1, name), (2, proto((1, proto((1, 1), (2, proto(*((1, side) for side in sides))))))))


class OnnxBuilder:
    """Grows the graph of a network from its arrays under the names of the model file.

    With `folded`, batch normalisation is in the weights; with `renamed`, weights have numbers for names and come over
    Identity nodes. A test may change `nodes` (op, inputs, outputs, attributes) and `weights` before bytes().
    """

    def __init__(self, arrays, folded=False, renamed=False, stride_at="3x3", output_stride=32, pooled=False, ends=(),
                 epsilon=1e-5, size=(224, 224)):
        self.arrays, self.folded, self.renamed, self.stride_at = arrays, folded, renamed, stride_at
        self.output_stride, self.pooled, self.epsilon, self.size = output_stride, pooled, epsilon, size
        self.nodes, self.weights, self.count = [], {}, 0
        self.output = self.network("x", ends)

    def weight(self, name, array):
        if self.renamed:
            name = f"onnx::Conv_{193 + len(self.weights)}"
        self.weights[name] = array
        if not self.renamed:
            return name
        self.nodes.append(("Identity", [name], [name + "_alias"], {}))
        return name + "_alias"

    def node(self, op, inputs, **attributes):
        self.count += 1
        self.nodes.append((op, inputs, [f"v{self.count}"], attributes))
        return f"v{self.count}"

    def convolution(self, value, conv, norm, stride=1, dilation=1, relu=True):
        array = self.arrays[conv + ".weight"]
        side = array.shape[2]
        inputs, groups = [value], self.groups(conv, array)
        scale, shift, mean, variance = (self.arrays[f"{norm}.{part}"] for part in NORM)
        factor = scale / np.sqrt(variance + np.float32(self.epsilon))
        inputs.append(self.weight(conv + ".weight", array * factor[:, None, None, None] if self.folded else array))
        if self.folded:
            inputs.append(self.weight(conv + ".bias", shift - mean * factor))
        value = self.node("Conv", inputs, kernel_shape=[side, side], strides=[stride] * 2, dilations=[dilation] * 2,
                          pads=[side // 2 * dilation] * 4, group=groups)
        if not self.folded:
            value = self.node("BatchNormalization", [value,
                                                     *(self.weight(f"{norm}.{part}", self.arrays[f"{norm}.{part}"])
                                                              for part in NORM)], epsilon=float(self.epsilon))
        return self.node("Relu", [value]) if relu else value

    def groups(self, conv, array):
        bottleneck = conv.endswith(".conv2") and conv[:-1] + "3.weight" in self.arrays
        return array.shape[0] // array.shape[1] if bottleneck else 1

    def attention(self, value, at):
        mean = self.node("GlobalAveragePool", [value])
        for name, op in (("fc1", "Relu"), ("fc2", "Sigmoid")):
            weight = self.arrays[f"{at}.se.{name}.weight"]
            mean = self.node(op, [self.node("Conv", [mean,
                                                     self.weight(f"{at}.se.{name}.weight", weight[:, :, None, None]),
                                                     self.weight(f"{at}.se.{name}.bias",
                                                                 self.arrays[f"{at}.se.{name}.bias"])],
                                            kernel_shape=[1, 1])])
        return self.node("Mul", [value, mean])

    def block(self, value, stage, block, step):
        at, (stride, dilation) = f"layer{stage}.{block}", step
        shortcut, branch = value, value
        last = 3 if f"{at}.conv3.weight" in self.arrays else 2
        if f"{at}.downsample.0.weight" in self.arrays:
            if self.pooled and stride == 2:
                shortcut = self.node("AveragePool", [value], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
            shortcut = self.convolution(shortcut, f"{at}.downsample.0", f"{at}.downsample.1",
                                        1 if self.pooled else stride,
                                        relu=False)
        for k in range(1, last + 1):
            strides = k == (2 if last == 3 and self.stride_at == "3x3" else 1)
            branch = self.convolution(branch, f"{at}.conv{k}", f"{at}.bn{k}", stride if strides else 1,
                                      dilation if k == 2 and last == 3 else 1, relu=k < last)
        if f"{at}.se.fc1.weight" in self.arrays:
            branch = self.attention(branch, at)
        return self.node("Relu", [self.node("Add", [branch, shortcut])])

    def network(self, value, ends):
        if "conv1.weight" in self.arrays:
            side = self.arrays["conv1.weight"].shape[2]
            value = self.convolution(value, "conv1", "bn1", 2 if side == 7 else 1)
            pool = side == 7
        else:
            for conv, norm, stride in (("conv1.0", "conv1.1", 2), ("conv1.3", "conv1.4", 1), ("conv1.6", "bn1", 1)):
                value = self.convolution(value, conv, norm, stride)
            pool = True
        if pool:
            value = self.node("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        dilation = 1
        for stage in range(1, 5):
            before, stride = dilation, 1 if stage == 1 else 2
            if 2 ** (stage + 1) > self.output_stride:
                dilation, stride = 2 * dilation, 1
            for block in range(sum(f"layer{stage}.{b}.conv1.weight" in self.arrays for b in range(9))):
                value = self.block(value, stage, block, (1, dilation) if block else (stride, before))
        value = self.node("Flatten", [self.node("GlobalAveragePool", [value])], axis=1)
        if "fc.weight" in self.arrays:
            value = self.node("Gemm", [value, self.weight("fc.weight", self.arrays["fc.weight"]),
                                       self.weight("fc.bias", self.arrays["fc.bias"])], alpha=1.0, beta=1.0, transB=1)
        for op in ends:
            value = self.node(op, [value])
        return value

    def bytes(self):
        channels = next(iter(self.arrays.values())).shape[1]
        graph = proto(*((1, onnx_node(*node)) for node in self.nodes), (2, "net"),
                      *((5, onnx_tensor(name, array)) for name, array in self.weights.items()),
                      (11, onnx_value("x", ["N", channels, *self.size])), (12, onnx_value(self.output, ["N", 3])))
        return proto((1, 7), (2, "test"), (7, graph), (8, proto((1, ""), (2, 13))))


def onnx(arrays, **options):
    return OnnxBuilder(arrays, **options).bytes()


# ---- Keras ----

def as_keras(arrays):
    """The names of keras.applications' ResNets, their order of dimensions, and biases of 0."""
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    renamed = {}
    for name, array in arrays.items():
        layer, part = name.rsplit(".", 1)
        if layer == "fc":
            layer, part, array = "predictions", "kernel" if part == "weight" else part, array.T
        else:
            norm = re.search(r"bn[0-9]$|downsample\.1$", layer)
            layer = keras_layer(layer, "bn" if norm else "conv")
            part = parts[part] if norm else "kernel"
            if not norm:
                renamed[f"{layer}/{layer}/bias:0"] = np.zeros(len(array), "<f4")
                array = array.transpose(2, 3, 1, 0)
        renamed[f"{layer}/{layer}/{part}:0"] = np.ascontiguousarray(array)
    return renamed


def keras_layer(name, kind):
    found = re.fullmatch(r"layer([1-4])\.([0-9]+)\.(?:downsample\.[01]|(?:conv|bn)([1-3]))", name)
    if not found:
        return f"conv1_{kind}"
    return f"conv{int(found[1]) + 1}_block{int(found[2]) + 1}_{found[3] or 0}_{kind}"


def h5_bytes(arrays):
    """An HDF5 file of these datasets; only where h5py is installed."""
    import h5py
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return data.getvalue()


def h5(arrays):
    return h5_bytes(as_keras(arrays))


# ---- The model file, told again from FORMAT.md ----

def crc32c_by_bits(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def u32(data, at, count=1):
    values = struct.unpack_from(f"<{count}I", data, at)
    return values[0] if count == 1 else values


def f32(data, at, count):
    return list(struct.unpack_from(f"<{count}f", data, at))


def rounded(values):
    return [float(np.float32(value)) for value in values]


def parse_tensors(data, shapes):
    """name -> array; also checks that padding is zero and that the file ends where it should."""
    at = 256 + u32(data, 96)
    result = {}
    for name, shape in [*shapes, (None, (0,))]:
        start = (at + 63) // 64 * 64
        assert not any(data[at:start]), "padding is not zero"
        at = start + 4 * int(np.prod(shape))
        result[name] = np.frombuffer(data[start:at], "<f4").reshape(shape)
    assert at == len(data), "the file does not end behind its last tensor"
    return result


# ---- Running the converter ----

audited = None  # a list while audit events are collected
WATCHED = ("open", "import", "exec", "compile", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen",
           "socket.connect", "pickle.find_class")


def audit(event, arguments):
    if audited is not None and event in WATCHED:
        audited.append((event, arguments[0] if arguments else None))


sys.addaudithook(audit)
codecs.lookup("unicode_escape")  # imported at its first use, which must not be seen as a checkpoint's doing


@contextlib.contextmanager
def audit_events():
    """The list of (event, first argument) of what is opened, imported or run meanwhile."""
    global audited
    events = audited = []
    try:
        yield events
    finally:
        audited = None


def remove(path):
    """So that the next file of this name is new: replacing one makes some file systems wait for the disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.fsync = mock.patch.object(os, "fsync").start()  # slow, and seen by no reader
        self.addCleanup(mock.patch.stopall)
        self.folder = folder.name
        self.output = self.path("out.resnet")

    def path(self, name, data=None):
        path = os.path.join(self.folder, name)
        if data is not None:
            remove(path)
            with open(path, "wb") as file:
                file.write(data)
        return path

    def run_main(self, *arguments):
        """(exit status, stdout, stderr); stderr is empty or one line."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = convert.main(list(arguments))
        if status == 0:
            self.assertEqual(err.getvalue(), "")
        else:
            self.assertRegex(err.getvalue(), r"\Aconvert: .+\n\Z")
            self.assertTrue(err.getvalue()[:-1].isprintable(), err.getvalue())
            self.assertEqual(out.getvalue(), "")
        return status, out.getvalue(), err.getvalue()

    def converted(self, checkpoint, *options):
        """The bytes of the model file made of a checkpoint's bytes."""
        status, self.report, message = self.run_main(self.path("in", checkpoint), "-o", self.output, *options)
        self.assertEqual(status, 0, message)
        with open(self.output, "rb") as file:
            return file.read()

    def refused(self, checkpoint, reason, *options, status=3):
        """Refused for this reason, and nothing written."""
        remove(self.output)
        got, _, message = self.run_main(self.path("in", checkpoint), "-o", self.output, *options)
        self.assertIn(reason, message)
        self.assertEqual(got, status, message)
        self.assertEqual(os.listdir(self.folder), ["in"])
