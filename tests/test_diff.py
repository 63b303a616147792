#!/usr/bin/env python3
"""Drive `resnet diff`: dumps made here by a plain forward pass in numpy, and, where torch is, by tools/dump_torch.py.

The environment variable RESNET_PROGRAM names the program.
"""
import json
import os
import random
import struct
import subprocess
import sys
import unittest

try:
    import numpy
except ImportError:
    print("skipped: numpy is not installed")
    sys.exit(77)

from test_program import INPUTS, IO, OK, PROGRAM, USAGE, ProgramTest, crc32c, png, resnet, seal, tiny_model

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools")
LAYERS = ["conv1", "maxpool", "layer1.0.conv1", "layer1.0.conv2", "avgpool", "fc"]
WIDTH, CLASSES = 8, 4
FILE_SIZE, HEAD, CLASS_COUNT, BN_EPSILON, LABELS_SIZE = 16, 37, 84, 88, 96  # offsets in the header


class Reader:
    """The tensors of tiny_model, one after the other; `where` is where the last one starts."""

    def __init__(self, model):
        self.model = model
        self.next = 256 + -(-struct.unpack_from("<I", model, LABELS_SIZE)[0] // 64) * 64

    def take(self, *shape):
        self.where = self.next
        count = int(numpy.prod(shape))
        self.next += -(-4 * count // 64) * 64
        return numpy.frombuffer(self.model, "<f4", count, self.where).reshape(shape).astype(float)


def windows(x, size, stride, pad, fill):
    """[channels][size * size][height][width]: what each output pixel sees."""
    x = numpy.pad(x, ((0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    height, width = ((side - size) // stride + 1 for side in x.shape[1:])
    return numpy.stack([x[:, i:i + stride * height:stride, j:j + stride * width:stride][:, :height, :width]
                        for i in range(size) for j in range(size)], 1)


def convolution(reader, x, out, size, stride):
    weight = reader.take(out, len(x), size * size)
    scale, shift, mean, variance = (reader.take(out, 1, 1) for _ in range(4))
    y = numpy.einsum("ock,ckhw->ohw", weight, windows(x, size, stride, size // 2, 0))
    return (y - mean) / numpy.sqrt(variance + 1e-5) * scale + shift


def forward(model, x):
    """What each layer of tiny_model gives, and at which byte its weights start."""
    reader, given, places = Reader(model), {}, {}

    def keep(name, value):
        given[name] = value
        return value

    def place(name, reader):
        places[name] = reader.next

    place("conv1", reader)
    x = keep("conv1", numpy.maximum(convolution(reader, x, WIDTH, 7, 2), 0))
    x = keep("maxpool", windows(x, 3, 2, 1, -numpy.inf).max(1))
    place("layer1.0.conv1", reader)
    y = keep("layer1.0.conv1", numpy.maximum(convolution(reader, x, WIDTH, 3, 1), 0))
    place("layer1.0.conv2", reader)
    x = keep("layer1.0.conv2", numpy.maximum(convolution(reader, y, WIDTH, 3, 1) + x, 0))
    x = keep("avgpool", x.mean((1, 2)))
    place("fc", reader)
    weight = reader.take(CLASSES, WIDTH)
    keep("fc", weight @ x + reader.take(CLASSES))
    return {name: value[None].astype("<f4") for name, value in given.items()}, places


class DiffTest(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        pixels = numpy.random.default_rng(1).integers(0, 256, (32, 32, 3))
        x = ((pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).astype("<f4").transpose(2, 0, 1)
        cls.layers, cls.places = forward(cls.model_bytes, x.astype(float))
        cls.arrays = dict(cls.layers, input=x[None])
        cls.dump = cls.save("dump.npz", cls.arrays)

    @classmethod
    def save(cls, name, arrays, write=numpy.savez):
        path = os.path.join(cls.folder.name, name)
        write(path, **arrays)
        return path

    def diff(self, model=None, dump=None, *arguments, code=OK):
        got, out, err = resnet("diff", model or self.model, "--against", dump or self.dump, "--json", *arguments)
        self.assertEqual(got, code, err)
        return json.loads(out)

    def defect(self, name, offset, form, value):
        """The model with a number changed."""
        model = bytearray(self.model_bytes)
        struct.pack_into(form, model, offset, value)
        return self.write(name, seal(model))


class Agrees(DiffTest):
    def test_in_f32(self):
        told = self.diff(None, None, "--all")
        self.assertEqual((told["first"], told["compared"], told["layers"], told["unknown"]), (None, 6, 6, 0))
        self.assertEqual([layer["name"] for layer in told["all"]], LAYERS)
        for layer in told["all"]:
            self.assertEqual(layer["state"], "agrees")
            self.assertLess(layer["relative"], 1e-6)  # rounding of sums of at most 147 products
            self.assertAlmostEqual(layer["largest"], float(abs(self.layers[layer["name"]]).max()), 5)

    def test_by_the_reference(self):
        self.assertIsNone(self.diff(None, None, "--isa", "reference")["first"])

    def test_in_smaller_precisions(self):
        pictures = self.path("pictures")
        for seed in range(6):
            self.write(f"{pictures}/{seed}.png", png(seed, 32, 32))
        for precision in ("bf16", "int8"):
            made = self.path(precision + ".resnet")
            code, _, err = resnet("quantize", "--model", self.model, "--calibrate", pictures, "--precision",
                                  precision, "-o", made)
            self.assertEqual(code, OK, err)
            told = self.diff(made)
            self.assertIsNone(told["first"], precision)
            worst = max(layer["relative"] for layer in self.diff(made, None, "--all")["all"])
            self.assertGreater(worst, 1e-4)  # these are rounded, so the comparison saw them
            self.assertLess(worst, told["tolerance"])

    def test_of_some_layers(self):
        told = self.diff(dump=self.save("some.npz", {name: self.arrays[name] for name in ("input", "fc")}))
        self.assertEqual((told["first"], told["compared"]), (None, 1))

    def test_without_a_head(self):
        model = bytearray(self.model_bytes)
        cut = len(model) - (WIDTH * CLASSES * 4 + 64)  # fc.weight, and fc.bias with its padding
        labels_end = 256 + -(-struct.unpack_from("<I", model, LABELS_SIZE)[0] // 64) * 64
        model = model[:256] + model[labels_end:cut]
        struct.pack_into("<Q", model, FILE_SIZE, len(model))
        struct.pack_into("<B", model, HEAD, 2)
        struct.pack_into("<I", model, CLASS_COUNT, 0)
        struct.pack_into("<I", model, LABELS_SIZE, 0)
        told = self.diff(self.write("headless.resnet", seal(model)))
        self.assertEqual((told["first"], told["compared"], told["unknown"]), (None, 5, 1))  # fc is unknown here

    def test_for_people(self):
        code, out, _ = resnet("diff", self.model, "--against", self.dump, "--all")
        self.assertEqual(code, OK)
        self.assertIn(b"6 of 6 layers are in the dump, and agree\n", out)
        for name in LAYERS:
            self.assertRegex(out, name.encode() + rb" .* agrees\n")


class Departs(DiffTest):
    def test_first_layer_with_a_wrong_weight(self):
        """Each layer is named for a weight of its own, with the numbers that a forward pass here has for it."""
        for name, offset in self.places.items():
            value = 3 + struct.unpack_from("<f", self.model_bytes, offset)[0]
            path = self.defect("wrong.resnet", offset, "<f", value)
            with open(path, "rb") as file:
                wrong = forward(file.read(), self.arrays["input"][0].astype(float))[0][name].astype(float)
            right = self.layers[name].astype(float)
            first = self.diff(path, code=INPUTS)["first"]
            self.assertEqual((first["name"], first["state"]), (name, "departs"))
            error = abs(wrong - right)
            self.assertAlmostEqual(first["difference"], error.max(), 4)
            self.assertAlmostEqual(first["relative"], float(numpy.sqrt((error**2).sum() / (right**2).sum())), 5)
            place = (0, *(int(i) for i in first["place"]))[:right.ndim]
            self.assertAlmostEqual(error[place], error.max(), 5)
            self.assertAlmostEqual(first["ours"], wrong[place], 4)
            self.assertAlmostEqual(first["theirs"], right[place], 4)

    def test_with_a_wrong_epsilon(self):
        path = self.defect("epsilon.resnet", BN_EPSILON, "<f", 1e-2)
        self.assertEqual(self.diff(path, code=INPUTS)["first"]["name"], "conv1")
        self.assertIsNone(self.diff(path, None, "--tolerance", "0.05")["first"])  # 1e-2 of 1 shrinks a layer by 0.5 %

    def test_with_another_shape(self):
        other = self.arrays["layer1.0.conv1"][:, :, :4, :4]
        first = self.diff(dump=self.save("shape.npz", dict(self.arrays, **{"layer1.0.conv1": other})),
                          code=INPUTS)["first"]
        self.assertEqual((first["name"], first["state"]), ("layer1.0.conv1", "misshapen"))
        self.assertEqual((first["shape"], first["dumped_shape"]), ([8, 8, 8], [8, 4, 4]))

    def test_where_a_number_is_not_finite(self):
        for number in (numpy.nan, numpy.inf):
            broken = self.arrays["avgpool"].copy()
            broken[0, 3] = number
            told = self.diff(dump=self.save("nan.npz", dict(self.arrays, avgpool=broken)), code=INPUTS)
            self.assertEqual((told["first"]["name"], told["first"]["place"][0]), ("avgpool", 3))

    def test_for_people(self):
        path = self.defect("people.resnet", self.places["layer1.0.conv2"], "<f", 9)
        code, out, _ = resnet("diff", path, "--against", self.dump)
        self.assertEqual(code, INPUTS)
        self.assertRegex(out, rb"^layer1\.0\.conv2 departs: its differences are \S+ of its numbers")
        self.assertRegex(out, rb"at channel 0, y \d, x \d: \S+ here, \S+ in the dump")
        self.assertIn(b"before it, the largest relative difference is", out)


class Refuses(DiffTest):
    def refused(self, dump, reason, code=IO):
        got, out, err = resnet("diff", self.model, "--against", dump)
        self.assertEqual((got, out), (code, b""))
        self.assertEqual(err.count("\n"), 1)
        self.assertIn(reason, err)

    def test_usage(self):
        for arguments in ([], [self.model], ["--against", self.dump], [self.model, self.model, "--against", self.dump],
                          [self.model, "--against", self.dump, "--tolerance", "2"],
                          [self.model, "--against", self.dump, "--tolerance", "nan"],
                          [self.model, "--against", self.dump, "--tolerance", "1e-4x"]):
            self.assertEqual(resnet("diff", *arguments)[:2], (USAGE, b""), arguments)

    def test_what_is_no_dump(self):
        self.refused(self.path("absent"), "No such file")
        self.refused(self.folder.name, "is a directory")
        self.refused(self.model, "is no .npz file, or cut off")
        self.refused(self.save("packed.npz", self.arrays, numpy.savez_compressed), "numpy.savez, not savez_compressed")
        self.refused(self.save("double.npz", {"input": numpy.zeros((1, 3, 32, 32))}), "not an array of f32")

    def test_a_dump_of_something_else(self):
        x = self.arrays["input"]
        self.refused(self.save("only.npz", {"input": x}), "has none of the network's layers, such as conv1")
        self.refused(self.save("none.npz", self.layers), 'has no array "input"')
        for wrong in (x[:, :1], x[0], numpy.concatenate((x, x))):
            self.refused(self.save("input.npz", dict(self.layers, input=wrong)), "array input: its shape is not 1 x 3")

    def test_damage_is_never_an_answer(self):
        with open(self.dump, "rb") as file:
            good = file.read()
        rng = random.Random(1)
        for _ in range(60):
            bad = bytearray(good)
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
            path = self.write("damaged.npz", bad)
            code, out, err = resnet("diff", self.model, "--against", path)
            self.assertIn(code, (OK, IO), err)  # OK: a date or the like, or the name of a layer
            self.assertEqual(err.count("\n"), int(code == IO))


try:
    import torch
    import torchvision
    from torch import nn
except ImportError:
    torch = None
else:
    def norm(channels):
        """Batch normalisation of random numbers."""
        bn = nn.BatchNorm2d(channels)
        for tensor in (bn.weight.data, bn.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (bn.bias.data, bn.running_mean):
            tensor.uniform_(-0.2, 0.2)
        return bn

    def conv(inputs, outputs, size, stride=1):
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    class SqueezeExcite(nn.Module):
        """As in timm."""

        def __init__(self, channels):
            super().__init__()
            self.fc1 = nn.Conv2d(channels, 8, 1)
            self.act = nn.ReLU(inplace=True)
            self.fc2 = nn.Conv2d(8, channels, 1)

        def forward(self, x):
            return x * torch.sigmoid(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))

    class SeBottleneck(nn.Module):
        """As in timm's seresnet50, with the shortcut of its resnet50d."""

        def __init__(self, inputs, planes, stride):
            super().__init__()
            self.conv1, self.bn1 = conv(inputs, planes, 1), norm(planes)
            self.conv2, self.bn2 = conv(planes, planes, 3, stride), norm(planes)
            self.conv3, self.bn3 = conv(planes, 4 * planes, 1), norm(4 * planes)
            self.se = SqueezeExcite(4 * planes)
            self.act = nn.ReLU(inplace=True)
            pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
            self.downsample = nn.Sequential(pool, conv(inputs, 4 * planes, 1), norm(4 * planes))

        def forward(self, x):
            y = self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))))
            return self.act(self.se(self.bn3(self.conv3(y))) + self.downsample(x))

    class Deep(nn.Module):
        """Two stages of a block each, behind timm's deep stem."""

        def __init__(self, width):
            super().__init__()
            half = width // 2
            self.conv1 = nn.Sequential(conv(3, half, 3, 2), norm(half), nn.ReLU(inplace=True), conv(half, half, 3),
                                       norm(half), nn.ReLU(inplace=True), conv(half, width, 3))
            self.bn1, self.maxpool = norm(width), nn.MaxPool2d(3, 2, 1)
            self.layer1 = nn.Sequential(SeBottleneck(width, width, 1))
            self.layer2 = nn.Sequential(SeBottleneck(4 * width, 2 * width, 2))
            self.global_pool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(8 * width, CLASSES)

        def forward(self, x):
            x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
            return self.fc(self.global_pool(self.layer2(self.layer1(x))).flatten(1))

    class Zeros(nn.Module):
        def forward(self, x):
            c = x.shape[1]
            return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, c // 2, c // 2))

    class CifarBlock(nn.Module):
        def __init__(self, inputs, planes, stride):
            super().__init__()
            self.conv1, self.bn1 = conv(inputs, planes, 3, stride), norm(planes)
            self.conv2, self.bn2 = conv(planes, planes, 3), norm(planes)
            self.shortcut = Zeros() if stride == 2 else nn.Sequential()

        def forward(self, x):
            return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))

    class Cifar(nn.Module):
        """Without a module for the average pool, and with another name for the head."""

        def __init__(self, width):
            super().__init__()
            self.conv1, self.bn1 = conv(3, width, 3), norm(width)
            self.layer1 = nn.Sequential(CifarBlock(width, width, 1))
            self.layer2 = nn.Sequential(CifarBlock(width, 2 * width, 2))
            self.linear = nn.Linear(2 * width, CLASSES)

        def forward(self, x):
            x = self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x)))))
            return self.linear(x.mean((2, 3)))

    def block_tensors(block):
        shortcut = getattr(block, "downsample", ())
        for part in (*shortcut, *(getattr(block, name + k, None) for k in "123" for name in ("conv", "bn"))):
            yield from tensors_of(part)
        if hasattr(block, "se"):
            for layer in (block.se.fc1, block.se.fc2):
                yield from (layer.weight, layer.bias)

    def tensors_of(module):
        """Of a convolution or a batch normalisation, as models/FORMAT.md orders them."""
        if isinstance(module, nn.Conv2d):
            yield module.weight
        elif isinstance(module, nn.BatchNorm2d):
            yield from (module.weight, module.bias, module.running_mean, module.running_var)

    def model_file(net, width, kinds):
        """The file of a network of two stages; kinds are its block, stem, shortcut and attention."""
        stem = (*net.conv1, net.bn1) if isinstance(net.conv1, nn.Sequential) else (net.conv1, net.bn1)
        head = getattr(net, "fc", getattr(net, "linear", None))
        tensors = [tensor for module in stem for tensor in tensors_of(module)]
        for stage in (net.layer1, net.layer2):
            tensors += block_tensors(stage[0])
        payload = b""
        for tensor in (*tensors, head.weight, head.bias):
            payload += tensor.detach().numpy().astype("<f4").tobytes()
            payload += bytes(-len(payload) % 64)
        block, stem_kind, shortcut, attention = kinds
        header = bytearray(tiny_model()[:256])
        struct.pack_into("<Q", header, FILE_SIZE, 256 + len(payload))
        struct.pack_into("<5B", header, 32, block, 0, stem_kind, shortcut, attention)
        struct.pack_into("<5I", header, 40, 1, 1, 0, 0, width)
        struct.pack_into("<3I", header, LABELS_SIZE, 0, 8 * attention, 0)
        return seal(bytes(header) + payload)


@unittest.skipUnless(torch, "torch and torchvision are not installed")
class Torch(DiffTest):
    def run_tool(self, name, *arguments):
        done = subprocess.run([sys.executable, os.path.join(TOOLS, name), *arguments], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_resnet50(self):
        model = torchvision.models.resnet50(num_classes=10)
        weights, made, dump = (self.path("resnet50" + end) for end in (".pth", ".resnet", ".npz"))
        torch.save(model.state_dict(), weights)
        self.run_tool("convert.py", weights, "-o", made)
        self.run_tool("dump_torch.py", "resnet50", "--weights", weights, "--classes", "10", "--size", "65", "-o", dump)
        told = self.diff(made, dump)
        self.assertEqual((told["first"], told["compared"], told["layers"], told["unknown"]), (None, 56, 56, 0))
        with open(made, "rb") as file:
            other = bytearray(file.read())
        other[33] = 1  # stride_at: in the first 1x1, as Caffe has it
        other[12:16] = bytes(4)
        struct.pack_into("<I", other, 12, crc32c(bytes(other[:256])))
        first = self.diff(self.write("other.resnet", other), dump, code=INPUTS)["first"]
        self.assertEqual((first["name"], first["state"]), ("layer2.0.conv1", "misshapen"))

    def test_the_rest_of_the_family(self):
        """Every layer that is named here is in the dump: of deep stems, average pools, attention and zeros."""
        sys.path.insert(0, TOOLS)
        import dump_torch
        torch.manual_seed(1)
        x = torch.from_numpy(numpy.ascontiguousarray(dump_torch.random_input(33, 1)))
        for net, kinds, layers in ((Deep(16), (2, 1, 1, 1), 4 + 2 * 8 + 1 + 2),
                                   (Cifar(8), (1, 3, 2, 0), 1 + 4 + 1 + 2)):
            dump = self.path("family.npz")
            dump_torch.dump(net, x, dump)
            width = net.bn1.num_features
            told = self.diff(self.write("family.resnet", model_file(net, width, kinds)), dump)
            self.assertEqual((told["first"], told["compared"], told["layers"], told["unknown"]),
                             (None, layers, layers, 0))


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("RESNET_PROGRAM must name the program")
    unittest.main()
