#!/usr/bin/env python3
"""Drive `resnet inspect`: models with one odd thing each, and checkpoints of every kind.

The environment variable RESNET_PROGRAM names the program.
"""
import json
import os
import struct
import subprocess
import sys
import unittest

from test_program import IO, MODEL, OK, PROGRAM, USAGE, ProgramTest, png, resnet, seal, tiny_model

WIDTH = 8
BN_EPSILON, RESIZE, MEAN, STD = 88, 92, 128, 192  # offsets in the header
LABELS_END = 320  # of tiny_model with LABELS, rounded up
CONV1_SIZE = 3 * 49 * WIDTH * 4 + 32  # with padding
VECTOR = 64  # bytes, of one with its padding
CONV1 = LABELS_END
SCALE, VARIANCE = CONV1 + CONV1_SIZE, CONV1 + CONV1_SIZE + 3 * VECTOR
CONV2 = VARIANCE + VECTOR
BLOCK_CONVOLUTION = WIDTH * WIDTH * 9 * 4 + 4 * VECTOR
FC = CONV2 + 2 * BLOCK_CONVOLUTION


class InspectTest(ProgramTest):
    def inspect(self, path, code=OK):
        got, out, err = resnet("inspect", "--json", path)
        self.assertEqual((got, err), (code, ""))
        return json.loads(out)

    def odd(self, *changes, model=None):
        """What is odd about the tiny model with (offset, format, numbers...) changed, but for what always is."""
        model = bytearray(model or tiny_model())
        for offset, form, *numbers in changes:
            struct.pack_into(form, model, offset, *numbers)
        odd = self.inspect(self.write("odd.resnet", seal(model)))["odd"]
        return [phrase for phrase in odd if "which no training updated" not in phrase]

    def expect(self, phrase, *changes, **options):
        odd = self.odd(*changes, **options)
        self.assertEqual(len(odd), 1, odd)
        self.assertIn(phrase, odd[0])


class Models(InspectTest):
    def test_nothing_is_odd(self):
        code, out, _ = resnet("inspect")
        self.assertEqual(code, OK)
        self.assertRegex(out, rb"\n  odd +nothing\n")
        self.assertEqual(self.odd(), [])

    def test_untrained_statistics(self):
        odd = self.inspect(self.model)["odd"]
        self.assertEqual(odd, ["layers with means of 0 and variances of 1, which no training updated: 3, from conv1 "
                               "on"])
        one = bytearray(tiny_model())
        struct.pack_into("<f", one, VARIANCE, 2)
        self.assertIn("updated: 2, from layer1.0.conv1 on", self.inspect(self.write("one.resnet", seal(one)))["odd"][0])

    def test_family(self):
        told = self.inspect(self.model)
        self.assertEqual((told["stem"], told["shortcut"], told["attention"], told["head"], told["output_stride"]),
                         ("7x7", "projection", None, "softmax", 0))

    def test_labels(self):
        self.expect("no labels", model=tiny_model(labels=()))
        self.expect("labels that another class has, too: 2, the first in the alphabet b",
                    model=tiny_model(labels=("b", "a", "b", "b")))

    def test_preprocessing(self):
        self.expect("mean and std are not ImageNet's", (MEAN, "<f", 0.5))
        self.expect("mean and std are not ImageNet's", (STD + 8, "<f", 0.25))
        self.expect("std is 1 in all channels", (STD, "<3f", 1, 1, 1))
        self.expect("no resize", (RESIZE, "<I", 0))
        self.expect("resize to 31 is less than the crop, 32 x 32", (RESIZE, "<I", 31))
        self.expect("epsilon is 0.001", (BN_EPSILON, "<f", 1e-3))

    def test_tensors(self):
        self.expect("channels with a scale of 0, which give their shift alone: 1, from conv1 on",
                    (SCALE + 4, "<f", 0))
        second = CONV2 + BLOCK_CONVOLUTION
        self.expect("channels with a scale of 0, which give their shift alone: 3, from layer1.0.conv1 on",
                    (second - 4 * VECTOR, "<f", 0), (FC - 4 * VECTOR, "<2f", 0, 0))
        self.expect("channels with next to no variance, which gave one number in training: 1, from conv1 on",
                    (VARIANCE + 8, "<f", 1e-9))
        self.expect("denormal weights, taken as 0: 2, from conv1 on",
                    (CONV1, "<f", 1e-40), (CONV1 + 40, "<f", -1e-42))
        self.expect("weights beyond 1000: 1, from layer1.0.conv1 on", (CONV2, "<f", -1001))
        self.expect("filters of zeros: 1, from conv1 on", (CONV1, "<147f", *[0] * 147))
        self.expect("rows of zeros in a linear layer, such as a class that was not trained: 2, from fc on",
                    (FC, f"<{2 * WIDTH}f", *[0] * 2 * WIDTH))

    def test_all_at_once(self):
        odd = self.odd((STD, "<3f", 1, 1, 1), (RESIZE, "<I", 0), (BN_EPSILON, "<f", 1e-3), (SCALE, "<f", 0),
                       (VARIANCE, "<f", 0), (CONV1, "<147f", *[0] * 147), (CONV2, "<2f", 1e-40, 1e4),
                       (FC, f"<{WIDTH}f", *[0] * WIDTH), model=tiny_model(labels=("a", "a", "b" * 30, "c" * 20)))
        self.assertEqual(len(odd), 10)

    def test_smaller_precisions(self):
        pictures = self.path("pictures")
        for seed in range(4):
            self.write(f"{pictures}/{seed}.png", png(seed))
        zeros = bytearray(tiny_model())
        struct.pack_into(f"<{WIDTH}f", zeros, FC, *[0] * WIDTH)
        source = self.write("zeros.resnet", seal(zeros))
        for precision in ("bf16", "int8"):
            made = self.path(precision)
            self.assertEqual(resnet("quantize", "--model", source, "--calibrate", pictures, "--precision", precision,
                                    "-o", made)[0], OK)
            told = self.inspect(made)
            self.assertEqual((told["precision"], len(told["odd"])), (precision, 1))
            self.assertIn("rows of zeros in a linear layer, such as a class that was not trained: 1", told["odd"][0])

    def test_first_name(self):
        self.assertEqual(resnet("info", self.model), resnet("inspect", self.model))


class Checkpoints(InspectTest):
    STARTS = {
        "HDF5": b"\x89HDF\r\n\x1a\n",
        "ZIP": b"PK\3\4" + bytes(22) + struct.pack("<HH", 12, 0) + b"net/data.pkl",
        "safetensors": struct.pack("<Q", 20) + b'{"__metadata__":{}} ',
        "pickle": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
        "index": b'{"metadata": {"total_size": 9}, "weight_map": {"conv1.weight": "model-1.safetensors"}}',
        "ONNX": b"\x08\x07\x12\x07pytorch",
    }

    def test_each_kind(self):
        for kind, start in self.STARTS.items():
            path = self.write(kind, start + bytes(100))
            told = self.inspect(path)
            self.assertIn(kind, told["container"])
            self.assertEqual(told["what_it_holds"], f"python3 tools/convert.py --inspect '{path}'")

    def test_a_shell_can_run_what_it_says(self):
        for name in ("two words", "it's; echo $HOME", "''"):
            path = self.write(name, self.STARTS["ONNX"] + bytes(9))
            line = self.inspect(path)["what_it_holds"].replace("python3 tools/convert.py --inspect", "printf %s")
            self.assertEqual(subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout, path)

    def test_what_is_neither(self):
        for data in (b"", b"text\n", os.urandom(64).replace(b"\x08", b"\0")):
            code, out, err = resnet("inspect", self.write("neither", b"?" + data))
            self.assertEqual((code, out, err.count("\n")), (MODEL, b"", 1))
        self.assertEqual(resnet("inspect", self.path("absent"))[:2], (IO, b""))
        self.assertEqual(resnet("inspect", self.folder.name)[:2], (IO, b""))
        self.assertEqual(resnet("inspect", "a", "b")[0], USAGE)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("RESNET_PROGRAM must name the program")
    unittest.main()
