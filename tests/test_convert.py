#!/usr/bin/env python3
"""Tests tools/convert.py: what it writes, what it recognises, and that nothing in a checkpoint can do harm.

Every checkpoint is made here, byte by byte, so that PyTorch is not needed and any part of one can be wrong.
"""
import contextlib
import errno
import io
import json
import os
import pickletools
import random
import resource
import stat
import struct
import sys
import tempfile
import time
import tracemalloc
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


# ---- A tiny network, told again from torchvision's source ----

def names_and_shapes(bottleneck=False, blocks=(1, 1), width=4, inner=4, channels=3, classes=3):
    """(name, shape) of every tensor but num_batches_tracked, in the order in which the network runs."""
    rows = []

    def convolution(conv, norm, *shape):
        rows.append((conv + ".weight", shape))
        rows.extend((f"{norm}.{part}", shape[:1]) for part in ("weight", "bias", "running_mean", "running_var"))

    convolution("conv1", "bn1", width, channels, 7, 7)
    last = width
    for stage, count in enumerate(blocks):
        planes, mid = width * 2 ** stage, inner * 2 ** stage
        out = 4 * planes if bottleneck else planes
        for block in range(count):
            at = f"layer{stage + 1}.{block}"
            if block == 0 and (stage > 0 or last != out):
                convolution(f"{at}.downsample.0", f"{at}.downsample.1", out, last, 1, 1)
            if bottleneck:
                convolution(f"{at}.conv1", f"{at}.bn1", mid, last, 1, 1)
                convolution(f"{at}.conv2", f"{at}.bn2", mid, mid, 3, 3)
                convolution(f"{at}.conv3", f"{at}.bn3", out, mid, 1, 1)
            else:
                convolution(f"{at}.conv1", f"{at}.bn1", planes, last, 3, 3)
                convolution(f"{at}.conv2", f"{at}.bn2", planes, planes, 3, 3)
            last = out
    return rows + [("fc.weight", (classes, last)), ("fc.bias", (classes,))]


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


def audit(event, arguments):
    if audited is not None and event in ("open", "import", "exec", "compile", "os.system", "os.exec", "os.fork",
                                         "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class"):
        audited.append((event, arguments[0] if arguments else None))


sys.addaudithook(audit)


def remove(path):
    """So that the next file of this name is new: replacing one makes some file systems wait for the disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.fsync = mock.patch.object(convert.os, "fsync").start()  # slow, and seen by no reader
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
        got, _, message = self.run_main(self.path("in", checkpoint), "-o", self.output, *options)
        self.assertIn(reason, message)
        self.assertEqual(got, status, message)
        self.assertEqual(os.listdir(self.folder), ["in"])


class ModelFile(Case):
    def test_basic_network_byte_by_byte(self):
        arrays = tiny()
        data = self.converted(safetensors(arrays))
        self.assertEqual(data[:12], b"\x8bRNT\r\n\x1a\n\1\0\0\0")
        self.assertEqual(u32(data, 12), crc32c_by_bits(data[:12] + bytes(4) + data[16:256]))
        self.assertEqual(u32(data, 16, 2), (len(data), 0))
        self.assertEqual(u32(data, 24), crc32c_by_bits(data[256:]))
        self.assertEqual(u32(data, 28), 0)
        self.assertEqual(data[32:40], b"\1\0\0\0\0\0\0\0")
        self.assertEqual(u32(data, 40, 4), (1, 1, 0, 0))
        self.assertEqual(u32(data, 56, 8), (4, 1, 64, 0, 3, 224, 224, 3))
        self.assertEqual(f32(data, 88, 1), rounded([1e-5]))
        self.assertEqual(u32(data, 92, 3), (256, 0, 0))
        self.assertEqual(data[104:128], bytes(24))
        self.assertEqual(f32(data, 128, 16), rounded([0.485, 0.456, 0.406] + [0] * 13))
        self.assertEqual(f32(data, 192, 16), rounded([0.229, 0.224, 0.225] + [0] * 13))
        self.check_tensors(data, arrays)

    def check_tensors(self, data, arrays):
        found = parse_tensors(data, [(name, array.shape) for name, array in arrays.items()])
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, name)

    def test_bottleneck_network(self):
        arrays = tiny(bottleneck=True, blocks=(2, 1, 1), inner=6, channels=1, classes=7)
        data = self.converted(safetensors(arrays))
        self.assertEqual(data[32:34], b"\2\0")
        self.assertEqual(u32(data, 40, 4), (2, 1, 1, 0))
        base, groups, per_group, _, channels, _, _, classes = u32(data, 56, 8)
        self.assertEqual((base, groups, channels, classes), (4, 1, 1, 7))
        self.assertEqual([(4 << stage) * per_group // 64 for stage in range(3)], [6, 12, 24])
        self.assertEqual((f32(data, 128, 16), f32(data, 192, 16)), ([0.0] * 16, [1.0] + [0.0] * 15))
        self.check_tensors(data, arrays)

    def test_both_containers_and_every_wrapping_give_the_same_file(self):
        arrays = tiny(bottleneck=True)
        counted = {**arrays, "bn1.num_batches_tracked": np.array(7, "<i8")}
        ordered = {"front": EMPTY_ORDERED_DICT,
                   "back": b"}" + text("_metadata") + EMPTY_ORDERED_DICT + text("conv1") + b"}" + text("version") +
                           b"K\1ss" + b"sb"}
        pickle, storages = state_pickle(arrays, prefix="module.")
        wrapped = b"\x80\x02}" + text("epoch") + number(90) + b"s" + text("state_dict") + pickle[2:-1] + b"s."
        expected = self.converted(safetensors(arrays))
        for other in (pth(arrays), pth(counted), safetensors(counted), pth(counted, **ordered),
                      pth(arrays, prefix="module."), archive(wrapped, storages).bytes(),
                      archive(wrapped.replace(b"\n\0\0\0state_dict", b"\5\0\0\0model"), storages).bytes(),
                      safetensors(dict(reversed(arrays.items())))):
            self.assertEqual(self.converted(other), expected)

    def test_parameters_of_pytorch(self):
        arrays = tiny()
        own, _ = array_tensor("0", arrays["conv1.weight"])
        parameter = name_of("torch._utils", "_rebuild_parameter") + own + b"\x88" + EMPTY_ORDERED_DICT + b"\x87R"
        self.assertEqual(self.converted(pth(arrays, replaced={"conv1.weight": parameter})),
                         self.converted(pth(arrays)))

    def test_other_types(self):
        arrays = tiny()
        expected = self.converted(pth(arrays))
        halves = {name: array.astype("<f2") for name, array in arrays.items()}
        doubles = {name: array.astype("<f8") for name, array in arrays.items()}
        brains = {name: (array.view("<u4") >> 16).astype("<u2") for name, array in arrays.items()}
        for other in (halves, doubles, brains):
            self.assertEqual(self.converted(pth(other)), expected)
            self.assertEqual(self.converted(safetensors(other)), expected)

    def test_strided_tensors(self):
        arrays = tiny()
        expected = self.converted(pth(arrays))
        strided = dict(arrays)
        last = np.empty((4, 7, 7, 3), "<f4")  # PyTorch's channels_last
        last.transpose(0, 3, 1, 2)[:] = arrays["conv1.weight"]
        strided["conv1.weight"] = last.transpose(0, 3, 1, 2)
        wide = np.zeros((9, 8, 2), "<f4")
        wide[3:6, :, 1] = arrays["fc.weight"]
        strided["fc.weight"] = wide[3:6, :, 1]
        self.assertEqual(self.converted(pth(strided)), expected)

    def test_strides_that_are_never_taken(self):
        arrays = tiny(channels=1)
        odd = tensor(storage("0", 196), 0, (4, 1, 7, 7), (49, 2 ** 31 - 1, 7, 1))
        self.assertEqual(self.converted(pth(arrays, replaced={"conv1.weight": odd})), self.converted(pth(arrays)))

    def test_tensors_that_share_a_storage(self):
        arrays = tiny()
        whole = np.concatenate([array.reshape(-1) for array in arrays.values()])
        replaced, at = {}, 0
        for name, array in arrays.items():
            replaced[name] = tensor(storage("0", whole.size), at, array.shape, element_strides(array))
            at += array.size
        pickle, _ = state_pickle(arrays, replaced)
        self.assertEqual(self.converted(archive(pickle, {"0": whole.tobytes()}).bytes()), self.converted(pth(arrays)))

    def test_options_reach_the_header(self):
        data = self.converted(pth(tiny()), "--resize", "0", "--crop", "65", "--interpolation", "bicubic",
                              "--mean=-1,0,0.5", "--std", "1,2,3e-1")
        self.assertEqual((data[39], u32(data, 76, 2), u32(data, 92)), (1, (65, 65), 0))
        self.assertEqual((f32(data, 128, 4), f32(data, 192, 4)), ([-1, 0, 0.5, 0], rounded([1, 2, 0.3, 0])))
        self.assertIn("no resize, crop 65, mean -1,0,0.5, std 1,2,0.3", self.report)

    def test_report(self):
        self.converted(pth(tiny()))
        parameters = sum(array.size for name, array in tiny().items() if "running" not in name)
        for part in (f"{parameters:,}", "resnet (basic blocks 1-1, width 4)", "3 x 224 x 224", "3, no labels",
                     "resize 256 bilinear, crop 224, mean 0.485,0.456,0.406, std 0.229,0.224,0.225"):
            self.assertIn(part, self.report)


class Labels(Case):
    def test_labels_file(self):
        arrays = tiny()
        for content in ("cat\ncrêpe\ndog\n", "cat\ncrêpe\ndog", "\ufeffcat\r\ncrêpe\r\ndog\r\n"):
            data = self.converted(pth(arrays), "--labels", self.path("labels", content.encode()))
            self.assertEqual(u32(data, 96), 15)
            self.assertEqual(data[256:271], "cat\ncrêpe\ndog\n".encode())
            parse_tensors(data, names_and_shapes())

    def test_labels_that_do_not_fit(self):
        path = self.path("in", pth(tiny()))
        for content, reason in ((b"a\nb\n", "2 labels"), (b"a\nb\nc\nd\n", "4 labels"), (b"a\n\nc\n", "line 2"),
                                (b"a\nb\tb\nc\n", "line 2"), (b"a\n\xff\nc\n", "UTF-8"), (b"", "1 labels")):
            status, _, message = self.run_main(path, "-o", self.output, "--labels", self.path("labels", content))
            self.assertEqual(status, 2)
            self.assertIn(reason, message)
        status, _, message = self.run_main(path, "-o", self.output, "--labels", self.path("none"))
        self.assertEqual(status, 4)

    def test_imagenet_labels_come_by_themselves(self):
        data = self.converted(pth(tiny(classes=1000)))
        labels = data[256:256 + u32(data, 96)].decode().split("\n")
        self.assertEqual((len(labels), labels[0], labels[999], labels[1000]), (1001, "tench", "toilet tissue", ""))


class Recognition(Case):
    def test_parameters_of_the_five_networks(self):
        for name, convolutions, parameters in (
                ("resnet18", 20, 11689512), ("resnet34", 36, 21797672), ("resnet50", 53, 25557032),
                ("resnet101", 104, 44549160), ("resnet152", 155, 60192808)):
            network = convert.Network(*convert.PRESETS[name])
            self.assertEqual(len(list(convert.convolutions(network))), convolutions)
            self.assertEqual(convert.parameter_count(network), parameters)
            self.assertEqual(network.architecture, name)
        wide = convert.Network(*convert.PRESETS["resnet50"], width_per_group=128)
        self.assertEqual((convert.parameter_count(wide), wide.architecture), (68883240, "resnet"))

    def test_arch(self):
        self.refused(pth(tiny()), "is resnet (basic blocks 1-1, width 4), not resnet50", "--arch", "resnet50")

    def test_missing_and_unexpected_tensors_are_named(self):
        arrays = tiny()
        for name in ("bn1.running_var", "layer2.0.downsample.0.weight", "fc.bias", "conv1.weight", "fc.weight"):
            self.refused(pth({key: value for key, value in arrays.items() if key != name}), name)
        for name in ("layer2.0.conv3.weight", "layer1.0.conv1.weight"):
            other = tiny(bottleneck=True)
            del other[name]
            self.refused(safetensors(other), name)
        extra = {f"extra{i}": np.zeros(1, "<f4") for i in range(5)}
        self.refused(safetensors({**arrays, **extra}), "5 unexpected: extra0, extra1, extra2 and 2 more")
        self.refused(pth({name: array for name, array in arrays.items() if not name.startswith("layer1")}),
                     "10 missing: layer1.0.conv1.weight, layer1.0.bn1.weight, layer1.0.bn1.bias and 7 more")

    def test_wrong_shapes_and_types_are_named(self):
        arrays = tiny()
        for name, array, reason in (
                ("bn1.weight", np.ones(5, "<f4"), "bn1.weight (float32 5, expected 4)"),
                ("layer1.0.conv1.weight", np.ones((4, 4, 1, 1), "<f4"), "4x4x1x1, expected 4x4x3x3"),
                ("conv1.weight", np.ones((4, 3), "<f4"), "conv1.weight has the shape 4x3"),
                ("conv1.weight", np.ones((0, 3, 7, 7), "<f4"), "conv1.weight has the shape 0x3x7x7"),
                ("fc.weight", np.ones((3, 9), "<f4"), "fc.weight (float32 3x9, expected 3x8)"),
                ("fc.bias", np.ones(3, "<i8"), "fc.bias (int64 3, expected 3)"),
                ("fc.bias", np.ones((), "<f4"), "fc.bias (float32 a single number, expected 3)"),
                ("bn1.weight", np.ones((4, 1), "<f4"), "bn1.weight (float32 4x1, expected 4)")):
            self.refused(pth({**arrays, name: array}), reason)
            self.refused(safetensors({**arrays, name: array}), reason)

    def test_numbers_that_no_network_has(self):
        arrays = tiny()
        for name, value, reason in (
                ("layer2.0.bn1.bias", np.nan, "layer2.0.bn1.bias holds numbers that are not finite"),
                ("fc.weight", -np.inf, "fc.weight holds numbers that are not finite"),
                ("bn1.running_var", -1e-30, "bn1.running_var holds a negative variance")):
            spoilt = arrays[name].copy()
            spoilt.flat[-1] = value
            self.refused(pth({**arrays, name: spoilt}), reason)
            self.refused(safetensors({**arrays, name: spoilt}), reason)
        for other in (np.full(3, 1e300), np.full(3, 0x7FF0000000000001).view("<f8"),  # the latter: signalling NaNs
                      np.full(3, 0x7C01, "<u2").view("<f2"), np.full(3, 0x7F81, "<u2")):
            self.refused(pth({**arrays, "fc.bias": other}), "fc.bias holds numbers that are not finite")

    def test_relatives_are_refused_by_name(self):
        arrays, one = tiny(bottleneck=True, inner=8), np.ones((8, 2, 3, 3), "<f4")
        for name, array, reason in (
                ("conv1.0.weight", one, "a deep stem"), ("layer1.0.se.fc1.weight", one, "squeeze-and-excitation"),
                ("layer1.0.downsample.2.weight", one, "an average-pool shortcut"), ("conv1.weight", one, "a 3x3 stem"),
                ("layer1.0.conv2.weight", one, "3x3 convolutions in 4 groups")):
            self.refused(pth({**arrays, name: array}), reason)

    def test_other_checkpoints(self):
        one = np.ones((1, 1), "<f4")
        self.refused(pth({"features.0.weight": one}), "no ResNet with torchvision's names; it begins with features.0")
        self.refused(safetensors({}), "begins with nothing")
        self.refused(pth({"conv1.weight": one}), "no ResNet")
        self.refused(pth({**tiny(), "layer1.1024.conv1.weight": one}), "more than the 1024")
        self.refused(pth({**tiny(), "layer1.1000000.conv1.weight": one}), "unexpected: layer1.1000000.conv1.weight")
        self.refused(safetensors({**tiny(), "bad\n\x1b[31m\ud800": one}), "bad\\n\\x1b[31m\\ud800")
        self.refused(pth(tiny(channels=17)), "17 in channels")

    def test_other_files(self):
        legacy = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e80024de9032e")
        self.refused(legacy, "before 1.6")
        for data in (b"hello", b"\x80\x02}.", b"\x08\x07\x12\x07pytorch\x1a", bytes(100), b"\x89HDF\r\n\x1a\n" * 9):
            self.refused(data, "neither")
        self.refused(b"", "empty")


class Crc32c(unittest.TestCase):
    def test_known_vectors(self):  # the last four: RFC 3720
        for data, crc in ((b"", 0), (b"a", 0xC1D04330), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA),
                          (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E),
                          (bytes(range(31, -1, -1)), 0x113FDB5C)):
            self.assertEqual(convert.crc32c(data), crc, data)

    def test_every_short_length_and_every_cut(self):
        data = random.Random(2).randbytes(70)
        for size in range(len(data) + 1):
            whole = crc32c_by_bits(data[:size])
            self.assertEqual(convert.crc32c(data[:size]), whole)
            self.assertEqual(convert.crc32c(data[size // 3:size], convert.crc32c(data[:size // 3])), whole)

    def test_more_than_one_fold(self):
        data = random.Random(3).randbytes(5000)
        with mock.patch.object(convert, "FOLD", 1024):
            self.assertEqual(convert.crc32c(data), crc32c_by_bits(data))
        self.assertEqual(convert.crc32c(data), crc32c_by_bits(data))


class Pickles(Case):
    """Pickles that want more than they may: refused for the right reason, and nothing run, imported or opened."""

    def check(self, pickle, storages, reason):
        global audited
        path = self.path("in", archive(pickle, storages).bytes())
        audited = []
        try:
            status, _, message = self.run_main(path, "-o", self.output)
            events = audited
        finally:
            audited = None
        self.assertEqual(status, 3, message)
        self.assertIn(reason, message)
        self.assertEqual(set(events), {("open", path)})
        self.assertEqual(os.listdir(self.folder), ["in"])

    def in_a_network(self, code, reason):
        """`code` stands where the tensor of conv1 should be."""
        self.check(*state_pickle(tiny(), replaced={"conv1.weight": code}), reason)

    def alone(self, code, reason):
        self.check(code, {}, reason)

    def test_opcode_names(self):
        self.assertEqual(convert.OPCODES, {ord(code): found.name for code, found in pickletools.code2op.items()})

    def test_every_other_opcode_is_refused(self):
        allowed = {name[3:].upper() for name in dir(convert.Pickle) if name.startswith("op_")}
        self.assertEqual(allowed, set(
            "PROTO GLOBAL BINPUT LONG_BINPUT BINGET LONG_BINGET EMPTY_TUPLE EMPTY_DICT MARK TUPLE TUPLE1 TUPLE2 TUPLE3 "
            "BINUNICODE BININT BININT1 BININT2 BINPERSID NEWFALSE NEWTRUE REDUCE SETITEM SETITEMS BUILD STOP".split()))
        for code, name in convert.OPCODES.items():
            if name not in allowed:
                self.in_a_network(bytes([code]) + b"\1os\nsystem\n", f"opcode {name} is not allowed")
        self.in_a_network(b"\xff", "0xff is no pickle opcode")

    def test_globals(self):
        touch = row(text(f"touch {self.path('executed')}")) + b"R"
        for module, name in (
                ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("__builtin__", "eval"),
                ("builtins", "exec"), ("builtins", "getattr"), ("builtins", "__import__"), ("subprocess", "Popen"),
                ("torch", "load"), ("torch.hub", "load"), ("torch._utils", "_rebuild_tensor"), ("runpy", "run_path"),
                ("torch.storage", "_load_from_bytes"), ("numpy.core.multiarray", "_reconstruct"), ("pickle", "loads"),
                ("torch", "FloatStorage.__class__"), ("torch", "_utils._rebuild_tensor_v2"), ("__main__", "x"),
                ("collections", "OrderedDict.__init__.__globals__"), ("collections", "ordereddict"), ("", "")):
            self.in_a_network(name_of(module, name) + touch, f"it wants {module}.{name}, which is not allowed")

    def test_damaged_globals(self):
        for code, reason in ((b"cos", "a global has no end"), (b"c" + b"x" * 300 + b"\n\n", "a global has no end"),
                             (b"c\xff\xfe\nx\n", "not allowed"), (b"cos\r\nsystem\r\n", "it wants os\\r.system\\r")):
            self.alone(b"\x80\x02" + code, reason)

    def test_calls(self):
        ordered, call = name_of("collections", "OrderedDict"), "in a way that torch.save does not"
        for code, reason in (
                (ordered + row(text("a")) + b"R", call), (ordered + b"}R", "no function"), (b"})R", "no function"),
                (text("os") + b")R", "no function"), (EMPTY_ORDERED_DICT + b")R", "no function"),
                (name_of("torch", "FloatStorage") + row(number(5)) + b"R", call), (REBUILD + b")R", call),
                (name_of("torch._utils", "_rebuild_parameter") + row(text("x"), b"\x89", b"}") + b"R", call),
                (REBUILD + row(storage("0", 588)) + b"R", "rebuilds a tensor in a way"),
                (tensor(storage("0", 588), 0, (4, 3, 7, 7), (147, 49, 7, 1), hooks=b"}" + text("h") + b"K\1s"),
                 "rebuilds a tensor in a way"), (b"R", "empty stack"), (b"(R", "empty stack")):
            self.in_a_network(code, reason)

    def test_attributes(self):
        own, _ = array_tensor("0", tiny()["conv1.weight"])
        for target in (own, REBUILD, text("x"), b")", b"}"):
            for state in (b"}" + text("__setstate__") + REBUILD + b"s", b"}" + text("__class__") + REBUILD + b"s", b"}",
                          row(b"}", b"}"), text("x"), b"\x89"):
                self.in_a_network(target + state + b"b", "sets attributes")
        self.in_a_network(text("x") + b"}" + text("_metadata") + b"}sb", "sets attributes")

    def test_memo(self):
        for code, reason in ((b"h\7", "recalls object 7"), (b"j\xff\xff\xff\xff", "recalls object 4294967295"),
                             (b"(q\0", "empty stack"), (b"h", "truncated")):
            self.alone(b"\x80\x02" + code, reason)
        bomb = b"".join(b"r" + struct.pack("<I", index) for index in range(70000))
        self.alone(b"\x80\x02}" + bomb + b".", "remembers more than 65536")

    def test_nesting(self):
        doubled = b")" + b"q\0h\0\x86" * 5000
        for code in (b")" + b"\x85" * 300000, doubled, b"}" + (b"q\0" + text("k") + b"h\0s") + b"\x85" * 9):
            started = time.monotonic()
            self.in_a_network(code, "conv1.weight in it is no tensor")
            self.assertLess(time.monotonic() - started, 10)
        self.alone(b"\x80\x02" + b"(" * 300000, "truncated")
        self.alone(b"\x80\x02" + b"(" * 300000 + b".", "does not end with its one object")
        self.alone(b"\x80\x02}q\0" + text("state_dict") + b"h\0s.", "holds no state dict: state_dict in it")

    def test_persistent_ids(self):
        kind, strange = name_of("torch", "FloatStorage"), "a persistent id"
        parts = [text("storage"), kind, text("0"), text("cpu"), number(588)]
        for code in (b"}", text("storage"), b")", row(*parts[:4]), row(*parts, b"}"), row(text("module"), *parts[1:]),
                     row(parts[0], name_of("collections", "OrderedDict"), *parts[2:]), row(*parts[:4], b"\x88"),
                     row(parts[0], text("FloatStorage"), *parts[2:]), row(*parts[:2], number(0), *parts[3:])):
            self.in_a_network(code + b"Q", strange)
        for key in ("../x", "/etc/passwd", "0/../1", "", "0\n", "-1", "1e0", " 0", "\u0663", "0" * 10, "..\n\x1b[31m"):
            self.in_a_network(storage(key, 588), "which is no number")
        self.in_a_network(storage("99", 588), "no member net/data/99")
        for count in (587, 589, 0, -588, 2 ** 31 - 1, -2 ** 31):
            self.in_a_network(storage("0", count), f"is said to hold {count} float32")
        for other in ("HalfStorage", "DoubleStorage", "LongStorage"):
            self.in_a_network(storage("0", 588, other), "its member has 2352 bytes")

    def test_views_outside_their_storage(self):
        held, shape, strides = storage("0", 588), (4, 3, 7, 7), (147, 49, 7, 1)
        for offset, sides, steps in (
                (1, shape, strides), (588, (1,), (1,)), (2 ** 31 - 1, shape, strides), (0, shape, (147, 49, 7, 2)),
                (0, shape, (2 ** 31 - 1, 49, 7, 1)), (0, (2 ** 31 - 1,), (0,)), (0, (30000, 30000), (0, 0)),
                (0, (4, 3, 7, 8), strides), (0, (2 ** 31 - 1,) * 8, (0,) * 8)):
            self.in_a_network(tensor(held, offset, sides, steps), "reaches outside its storage of 588 elements")
        for offset, sides, steps in (
                (-1, shape, strides), (0, (-4, 3, 7, 7), strides), (587, shape, (-147, 49, 7, 1)), (0, shape, (1,)),
                (0, shape, ()), (0, (1,) * 9, (1,) * 9)):
            self.in_a_network(tensor(held, offset, sides, steps), "are not a few sizes")
        odd = REBUILD + row(held, number(0), row(b"\x88", text("3")), sizes((1, 1)), b"\x89", b"}") + b"R"
        self.in_a_network(odd, "are not a few sizes")

    def test_scattered_view(self):
        count = 8 << 20
        strided = tensor(storage("99", count), 0, (3,), (count // 2 - 1,))
        pickle, storages = state_pickle(tiny(), replaced={"fc.bias": strided})
        self.refused(archive(pickle, {**storages, "99": bytes(4 * count)}).bytes(),
                     "fc.bias: a tensor of 3 is scattered over")

    def test_damaged_pickles(self):
        for code, reason in (
                (b"", "truncated"), (b".", "does not end"), (b"\x80\x02}", "truncated"),
                (b"\x80\x02}..", "does not end"), (b"\x80\x02}}.", "does not end"),
                (b"\x80\x02(}.", "does not end"), (b"\x80\x04}.", "protocol 4"),
                (b"}\x80\x02.", "protocol 2"), (b"\x80\x02X\xff\xff\xff\xffab", "truncated"), (b"\x80", "truncated"),
                (b"\x80\x02X\2\0\0\0\xff\xfe.", "not UTF-8"), (b"\x80\x02t.", "a mark"), (b"\x80\x02u.", "a mark"),
                (b"\x80\x02}(K\1u.", "no dict"), (b"\x80\x02)(" + text("a") + b"K\1u.", "no dict"),
                (b"\x80\x02}K\1K\1s.", "no string"), (b"\x80\x02}))s.", "no string"), (b"\x80\x02}s.", "empty stack"),
                (b"\x80\x02}" + (text("a") + b"K\1s") * 2 + b".", "a is there twice"),
                (b"\x80\x02K\1.", "no state dict"), (b"\x80\x02" + REBUILD + b".", "no state dict"),
                (b"\x80\x02}" + text("a") + b"K\1s.", "a in it is no"),
                (b"\x80\x02X", "truncated"), (b"\x80\x02\x86.", "empty stack"), (bytes((1 << 19) + 1), "more than")):
            self.alone(code, reason)


class Archives(Case):
    def spoilt(self, reason, spoil):
        parts = archive(*state_pickle(tiny()))
        spoil(parts)
        self.refused(parts.bytes(), reason)

    def with_member(self, reason, name=b"net/data/0", **changes):
        self.spoilt(reason, lambda parts: parts[name].update(changes))

    def with_ends(self, reason, **changes):
        """The same change in both end records."""
        self.spoilt(reason, lambda parts: parts.end.update(changes, zip64=changes))

    def with_end64(self, reason, **changes):
        self.spoilt(reason, lambda parts: parts.end.update(zip64=changes))

    def test_members(self):
        size = len(archive(*state_pickle(tiny())).bytes())
        self.with_member("compressed ZIP member, net/data/0", method=8)
        self.with_member("compressed ZIP member", packed=100)
        self.with_member("encrypted ZIP member", flags=0x809)
        self.with_member("encrypted ZIP member", flags=0x848)
        self.with_member("lies outside the file", size=size, packed=size)
        self.with_member("lies outside the file", size=0xFFFFFFFF, packed=0xFFFFFFFF,
                         extra=struct.pack("<2H2Q", 1, 16, 2352, 2352))
        self.with_member("overlap", name=b"net/version", size=99, packed=99)
        self.with_member("differs from the directory", local_name=b"net/data/1")
        self.with_member("differs from the directory", local=5)
        self.with_member("is truncated", local=size - 3)
        self.with_member("is truncated", local=0xFFFFFFFF)
        self.with_member("is damaged", crc=1)
        self.spoilt("not UTF-8", lambda parts: parts[b"net/version"].update(name=b"net/\xff"))
        self.spoilt("two ZIP members called net/version", lambda parts: parts[b"net/data/3"].update(
            name=b"net/version", local_name=b"net/version"))

    def test_data_pkl(self):
        self.spoilt("it has 0 members", lambda parts: parts.members.pop(0))
        self.spoilt("it has 2 members", lambda parts: parts.members.append(
            {**parts.members[0], "name": b"old/data.pkl", "local_name": b"old/data.pkl"}))
        for order, reason in ((b"big", "big-endian"), (b"x" * 99, "big-endian")):
            pickle, storages = state_pickle(tiny())
            parts = archive(pickle, storages)
            parts.members += Zip([(b"net/byteorder", order)]).members
            self.refused(parts.bytes(), reason)

    def test_directory(self):
        self.with_ends("longer than its members", count=2)
        self.with_ends("shorter than its members", count=500)
        self.with_ends("damaged ZIP directory", position=0)
        self.with_ends("lies outside the file", position=0xFFFFFFFF)
        self.with_ends("lies outside the file", size=0xFFFFFFFF)
        self.with_ends("lies outside the file", size=0xFFFFFFFF, position=0xFFFFFFFF, count=0xFFFF)
        self.with_ends("several parts", disk=1)
        for changes in ({"count": 3}, {"size": 1}, {"position": 2 ** 63}, {"position": 0}, {"at": 0}):
            self.with_end64("ZIP64 end record that contradicts", **changes)
        self.with_end64("ZIP64 end record that lies outside the file", at=2 ** 64 - 1)

    def test_long_directory(self):
        parts = archive(*state_pickle(tiny()))
        parts.members += Zip([(b"net/" + b"%05d" % i + b"x" * 60000, b"") for i in range(80)]).members
        self.refused(parts.bytes(), "has a ZIP directory of 48")

    def test_bytes_in_front_behind_or_missing(self):
        data = pth(tiny())
        self.refused(data + b"\0", "without its end")
        self.refused(b"PK" + data, "contradicts")
        for size in (2, 3, 21, 22, 100, len(data) // 2, len(data) - 1):
            self.refused(data[:size], "truncated")


class Safetensors(Case):
    def setUp(self):
        super().setUp()
        self.arrays = tiny()
        self.entries = safetensors_header(self.arrays)
        self.data = b"".join(array.tobytes() for array in self.arrays.values())

    def with_entry(self, reason, **changes):
        self.entries["bn1.weight"] = {**safetensors_header(self.arrays)["bn1.weight"], **changes}
        self.refused(safetensors_file(self.entries, self.data), reason)

    def test_header_size(self):
        good = safetensors_file(self.entries, self.data)
        self.refused(good[:8], "neither")
        for size, reason in ((2 ** 64 - 1, "more than is read"), (len(good) - 7, "more than is read"),
                             (0, "no valid JSON"), (10, "no valid JSON"), (len(good) - 8, "no valid JSON")):
            self.refused(struct.pack("<Q", size) + good[8:], reason)
        self.refused(safetensors_file(json.dumps(self.entries).encode() + b" " * (4 << 20), self.data), "more than is")

    def test_json(self):
        for raw, reason in (
                (b"{" * 100000, "no valid JSON"), (b'{"a":' + b"[" * 500000, "no valid JSON"),
                (b'{"a":"\xff"}', "no valid JSON"), (b"{} x", "no valid JSON"), (b'{"a":1,"a":2}', "names a twice"),
                (b'{"a":{"dtype":1,"dtype":2}}', "names dtype twice"), (b'{"a":1e3}', "number 1e3"),
                (b'{"a":NaN}', "number NaN"), (b'{"a":' + b"9" * 100000 + b"}", "number 999"),
                (b'{"a":-Infinity}', "number -Infinity"), (b'{"a":[]}', "describes a"), (b'{"a":1}', "describes a")):
            self.refused(safetensors_file(raw, self.data), reason)
        self.refused(b"[\0\0\0\0\0\0\0{}" + bytes(100), "no valid JSON")

    def test_entries(self):
        for dtype in ("F8_E4M3", "U8", "f32", "", 1, ["F32"], {"F32": 1}, None):
            self.with_entry("which is not read", dtype=dtype)
        for shape in ([-4], ["4"], [True], 4, "4", None, {"4": 4}, [[4]], [None]):
            self.with_entry("not sizes", shape=shape)
        for shape in ([5], [4, 4], [], [0], [1] * 8 + [4], [2 ** 40, 2 ** 40], [10 ** 18] * 8):
            self.with_entry("but has 16 bytes", shape=shape)
        begin, end = self.entries["bn1.weight"]["data_offsets"] = [2352, 2368]
        for offsets in ([begin], [begin, end, end], [-1, end], begin, None, [begin, "x"], [begin, True]):
            self.with_entry("not sizes", data_offsets=offsets)
        for offsets in ([end, begin], [begin, 10 ** 18], [10 ** 9, 10 ** 9 + 16]):
            self.with_entry("lies outside the file", data_offsets=offsets)
        self.with_entry("overlap", data_offsets=[0, 16])
        self.with_entry("leave a hole at byte 2352", data_offsets=[begin + 4, end + 4])
        self.with_entry("describes bn1.weight by other things", extra=1)
        del self.entries["bn1.weight"]["dtype"], self.entries["bn1.weight"]["extra"]
        self.refused(safetensors_file(self.entries, self.data), "describes bn1.weight by other things")

    def test_holes_and_ends(self):
        good = safetensors_file(self.entries, self.data)
        self.refused(good + b"\0", "1 bytes behind its last tensor")
        self.refused(good[:-1], "lies outside the file")
        del self.entries["bn1.weight"]
        self.refused(safetensors_file(self.entries, self.data), "leave a hole at byte 2352")


class Files(Case):
    def test_inputs_that_are_no_regular_files(self):
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        for path in (self.folder, fifo, "/dev/zero", "/dev/null", self.path("none"), self.path("none/none")):
            started = time.monotonic()
            self.assertEqual(self.run_main(path, "-o", self.output)[0], 4, path)
            self.assertLess(time.monotonic() - started, 10)

    def test_sparse_files_take_no_memory(self):
        limit = 2 << 30
        for size, front, reason in (
                (1 << 40, b"", "more than the 2147483648"), (limit + 1, pth(tiny()), "more than the 2147483648"),
                (limit, pth(tiny()), "without its end"), (limit, safetensors(tiny()), "behind its last tensor"),
                (limit, b"", "neither"), (limit, struct.pack("<Q", 1 << 30) + b"{", "more than is read")):
            path = self.path("in", front)
            os.truncate(path, size)
            tracemalloc.start()
            status, _, message = self.run_main(path, "-o", self.output)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertEqual(status, 3)
            self.assertIn(reason, message)
            self.assertLess(peak, 8 << 20)

    def test_file_that_shrinks(self):
        path = self.path("in", safetensors(tiny()))
        with mock.patch.object(convert, "check_output", lambda *_: os.truncate(path, 5000)):
            status, _, message = self.run_main(path, "-o", self.output)
        self.assertEqual(status, 4)
        self.assertIn("became shorter", message)

    def test_outputs_that_cannot_be(self):
        path = self.path("in", pth(tiny()))
        for output, expected in ((self.folder, 4), ("/dev/null", 4), (self.path("none/out"), 4), (self.path("in/x"), 4),
                                 (path, 2), (self.path("x" * 300), 4)):
            self.assertEqual(self.run_main(path, "-o", output)[0], expected, output)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))
        self.assertEqual(os.listdir(self.folder), ["in"])

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_read_only_folder(self):
        path = self.path("in", pth(tiny()))
        self.check_old_file_stays(path, contextlib.ExitStack(), before=lambda: os.chmod(self.folder, 0o555))
        os.chmod(self.folder, 0o755)

    def check_old_file_stays(self, path, failure, before=lambda: None, reason=""):
        self.path("out.resnet", b"old")
        before()
        with failure:
            status, _, message = self.run_main(path, "-o", self.output)
        self.assertEqual(status, 4, message)
        self.assertIn(reason, message)
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out.resnet"])
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_failing_disk_leaves_the_old_file(self):
        path = self.path("in", pth(tiny()))
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for call in ("fsync", "replace"):
            self.check_old_file_stays(path, mock.patch.object(convert.os, call, side_effect=full), reason="No space")

    def test_file_size_limit_leaves_the_old_file(self):
        path = self.path("in", pth(tiny()))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit in (0, 100, 256, 4000):
            with contextlib.ExitStack() as stack:
                stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
                self.check_old_file_stays(path, stack, reason="File too large", before=lambda: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (limit, hard)))

    def test_refusal_and_interruption_leave_the_old_file(self):
        arrays = tiny()
        self.path("out.resnet", b"old")
        path = self.path("in", pth({**arrays, "fc.bias": np.full(3, np.nan, "<f4")}))
        self.assertEqual(self.run_main(path, "-o", self.output)[0], 3)
        path = self.path("in", pth(arrays))
        with mock.patch.object(convert.os, "fsync", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.run_main(path, "-o", self.output)
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out.resnet"])
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_numbers_are_on_the_disk_before_the_name_is(self):
        calls = mock.Mock()
        with mock.patch.object(convert.os, "replace", wraps=os.replace) as replace:
            calls.attach_mock(self.fsync, "fsync")
            calls.attach_mock(replace, "replace")
            self.converted(pth(tiny()))
        self.assertEqual([call[0] for call in calls.mock_calls], ["fsync", "replace"])

    def test_symbolic_link_stays(self):
        os.symlink("target", self.output)
        self.converted(pth(tiny()))
        self.assertTrue(os.path.islink(self.output))
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out.resnet", "target"])

    def test_permissions_follow_the_umask(self):
        old = os.umask(0o027)
        self.addCleanup(os.umask, old)
        self.converted(pth(tiny()))
        self.assertEqual(stat.S_IMODE(os.stat(self.output).st_mode), 0o640)


class CommandLine(Case):
    def test_wrong_usage(self):
        path = self.path("in", pth(tiny()))
        good = [path, "-o", self.output]
        for arguments in ([], [path], good[1:], [*good, "x"], [*good, "--nothing"], [*good, "--crop", "0"],
                          [*good, "--crop", "16385"], [*good, "--crop", "1.5"], [*good, "--resize=-1"],
                          [*good, "--resize", "9" * 5000], [*good, "--interpolation", "nearest"],
                          [*good, "--lab", "x"], [*good, "--arch", "vgg"], [*good, "--mean", "1,2"],
                          [*good, "--mean", "1,2,nan"], [*good, "--mean", "1,2,1e39"],
                          [*good, "--mean", ""], [*good, "--std", "1,1,0"], [*good, "--std", "1,1,1e-60"],
                          [*good, "--std", "1,1,-1"], [*good, "--std", "1,1,1,1"], [*good, "--mean", "a\nb"]):
            self.assertEqual(self.run_main(*arguments)[0], 2, arguments)
        self.assertEqual(os.listdir(self.folder), ["in"])


class Mutations(Case):
    """Checkpoints with random damage: converted or refused, in one line and quickly."""

    def check_all(self, checkpoints):
        started, seen = time.monotonic(), set()
        for checkpoint in checkpoints:
            status, _, message = self.run_main(self.path("in", checkpoint), "-o", self.output)
            self.assertIn(status, (0, 3), message)
            self.assertEqual(os.path.exists(self.output), status == 0)
            remove(self.output)
            seen.add(status)
        self.assertEqual(seen, {0, 3})
        self.assertLess(time.monotonic() - started, 60)

    def mutated(self, data, source):
        data = bytearray(data)
        for _ in range(source.choice((1, 1, 2, 8))):
            at = source.randrange(len(data))
            flipped = data[at] ^ 1 << source.randrange(8)
            data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, flipped, source.randrange(256)))
        return bytes(data)

    def test_zip(self):
        source = random.Random(4)
        good = archive(*state_pickle(tiny(blocks=(1,))), checksums=False).bytes()
        self.check_all(self.mutated(good, source) for _ in range(500))

    def test_pickle(self):
        source = random.Random(5)
        pickle, storages = state_pickle(tiny(blocks=(1,)))
        self.check_all(archive(self.mutated(pickle, source), storages).bytes() for _ in range(500))

    def test_safetensors(self):
        source = random.Random(6)
        good = safetensors(tiny(blocks=(1,)))
        self.check_all(self.mutated(good, source) for _ in range(250))
        self.check_all(self.mutated(good[:3000], source) + good[3000:] for _ in range(250))

    def test_truncations(self):
        good = safetensors(tiny(blocks=(1,)))
        for checkpoint in (good, pth(tiny(blocks=(1,)))):
            for size in range(0, len(checkpoint), 97):
                self.assertEqual(self.run_main(self.path("in", checkpoint[:size]), "-o", self.output)[0], 3)


if __name__ == "__main__":
    unittest.main()
