#!/usr/bin/env python3
"""Tests the reading of Keras's .h5 files, which are made with h5py: without it this is skipped."""
import os
import random
import sys
import tempfile
import time
import unittest
from unittest import mock

from convert_support import Case, as_keras, f32, h5, h5_bytes, names_and_shapes, np, parse_tensors, rounded, tiny
from checkpoints import keras  # where it is: convert_support.py

try:
    import h5py
except ImportError:
    print("skipped: h5py is not installed for this Python")
    sys.exit(77)

KIND = {"bottleneck": True, "blocks": (2, 1, 1)}


class Keras(Case):
    def check(self, data, kind):
        """The same numbers in PyTorch's order, from RGB, and Keras's normalisation."""
        arrays = tiny(**kind)
        found = parse_tensors(data, names_and_shapes(**kind))
        for name, array in arrays.items():
            expected = array[:, ::-1] if name == "conv1.weight" and array.shape[1] == 3 else array
            np.testing.assert_array_equal(found[name], expected, name)
        self.assertEqual((data[32], data[33]), (2, 1))
        self.assertEqual(f32(data, 88, 1), rounded([1.001e-5]))

    def test_names_of_keras_applications(self):
        data = self.converted(h5(tiny(**KIND)))
        self.check(data, KIND)
        self.assertIn("HDF5, names of Keras", self.report)
        self.assertEqual(f32(data, 128, 3), rounded([123.68 / 255, 116.779 / 255, 103.939 / 255]))
        self.assertEqual(f32(data, 192, 3), rounded([1 / 255] * 3))

    def test_forms_of_files(self):
        expected = self.converted(h5(tiny(**KIND)))
        for front, suffix, optimizer in (("model_weights/", ":0", True), ("resnet50/", ":0", False), ("", "", False)):
            arrays = {f"{front}{name.removesuffix(':0')}{suffix}": array for name,
                      array in as_keras(tiny(**KIND)).items()}
            if optimizer:
                arrays["optimizer_weights/Adam/conv1_conv/kernel:0"] = np.ones(3, "<f4")
            self.assertEqual(self.converted(h5_bytes(arrays)), expected)

    def test_options(self):
        data = self.converted(h5(tiny(**KIND)), "--stride-at", "3x3", "--channels", "rgb", "--mean", "0,0,0")
        self.assertEqual((data[33], f32(data, 128, 3), f32(data, 192, 3)), (0, [0] * 3, rounded([1 / 255] * 3)))
        found = parse_tensors(data, names_and_shapes(**KIND))
        np.testing.assert_array_equal(found["conv1.weight"], tiny(**KIND)["conv1.weight"])

    def test_biases_go_into_the_means(self):
        arrays = as_keras(tiny(**KIND))
        arrays["conv1_conv/conv1_conv/bias:0"] = np.array([1, 2, 3, 4], "<f4")
        found = parse_tensors(self.converted(h5_bytes(arrays)), names_and_shapes(**KIND))
        np.testing.assert_array_equal(found["bn1.running_mean"], tiny(**KIND)["bn1.running_mean"] - [1, 2, 3, 4])

    def test_heads(self):
        arrays = as_keras(tiny(**KIND))
        none = {name: array for name, array in arrays.items() if "predictions" not in name}
        self.assertEqual(self.converted(h5_bytes(none))[37], 2)
        own = {name.replace("predictions", "dense_7"): array for name, array in arrays.items()}
        self.assertEqual(self.converted(h5_bytes(own)), self.converted(h5(tiny(**KIND))))
        two = {**own, "dense_8/dense_8/kernel:0": np.ones((3, 2), "<f4")}
        self.refused(h5_bytes(two), "several classifiers: dense_7, dense_8")

    def test_other_channels(self):
        kind = {**KIND, "channels": 1}
        data = self.converted(h5(tiny(**kind)))
        self.check(data, kind)
        self.assertEqual((f32(data, 128, 2), f32(data, 192, 2)), ([0, 0], [1, 0]))

    def test_other_networks(self):
        arrays = as_keras(tiny(**KIND))
        one = np.ones(3, "<f4")
        for layer, reason in (("conv2_block1_preact_bn", "pre-activation network (ResNetV2"),
                              ("post_bn", "pre-activation"),
                              ("embedding", "not of keras.applications' ResNet50, 101 or 152: embedding")):
            self.refused(h5_bytes({**arrays, f"{layer}/{layer}/gamma:0": one}), reason)
        self.refused(h5_bytes({"res2a_branch2a/res2a_branch2a/kernel:0": one}), "Keras's first names")
        self.refused(h5_bytes({"layers/dense/vars/0": one}), "no ResNet with the names")
        del arrays["conv1_bn/conv1_bn/beta:0"]
        self.refused(h5_bytes(arrays), "1 missing: bn1.bias")


class Hostile(Case):
    def made(self, make):
        """The bytes of a file that a function fills."""
        path = self.path("made.h5")
        with h5py.File(path, "w") as file:
            make(file)
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        return data

    def check(self, reason, make):
        arrays = as_keras(tiny(**KIND))
        name = "conv1_conv/conv1_conv/kernel:0"

        def fill(file):
            for other, array in arrays.items():
                if other != name:
                    file[other] = array
            make(file, name, arrays[name])
        self.refused(self.made(fill), reason)

    def test_datasets_that_are_not_in_the_file(self):
        """Another file holds the very tensor that is asked for."""
        secret = self.made(lambda file: file.create_dataset("x", data=np.ones((7, 7, 3, 4), "<f4")))
        other = tempfile.TemporaryDirectory()
        self.addCleanup(other.cleanup)
        place = os.path.join(other.name, "secret.h5")
        with open(place, "wb") as file:
            file.write(secret)

        def external_link(file, name, _):
            file[name] = h5py.ExternalLink(place, "/x")

        def soft_link(file, name, _):
            file[name] = h5py.SoftLink("/conv1_bn/conv1_bn/gamma:0")

        def external_storage(file, name, array):
            file.create_dataset(name, array.shape, "<f4", external=[(place, 2048, array.nbytes)])

        def virtual(file, name, array):
            layout = h5py.VirtualLayout(array.shape, "<f4")
            layout[...] = h5py.VirtualSource(place, "x", array.shape)
            file.create_virtual_dataset(name, layout)

        for make, reason in ((external_link, "lacks conv1.weight"),
                             (soft_link, "lacks conv1.weight"), (external_storage, "is kept in other files"),
                             (virtual, "is kept in other files")):
            self.check(reason, make)

    def test_filters_and_types(self):
        for how, reason in (({"chunks": True}, "is chunked or compressed"),
                            ({"compression": "gzip"}, "is chunked or compressed"),
                            ({"dtype": ">f4"}, "has the type >f4"), ({"dtype": "S3"}, "has the type |S3")):
            self.check(reason, lambda file, name, array, how=how: file.create_dataset(
                name, data=array if "S3" not in how.values() else array.astype("S3"), **how))
        self.check("is kept in the file's index",
                   lambda file, name, array: file.create_dataset(name, array.shape, "<f4"))

    def test_many_and_deep_groups(self):
        self.refused(self.made(lambda file: file.create_group("/".join("abcdefghij"))), "groups more than 8 deep")

        def cycle(file):
            file["a"] = file["/"]
        self.refused(self.made(cycle), "groups more than 8 deep")

        def many(file):
            one = file.create_dataset("d", data=np.ones(1))
            for i in range(1 << 14):
                file[f"g/{i}"] = one
        self.refused(self.made(many), "more than 16384 groups and datasets")
        self.refused(self.made(lambda file: file.create_group("n" * 301)), "a name of 301 characters")

    def test_huge_claims(self):
        """A dataset of an exabyte, of which nothing was written."""
        path = self.path("huge.h5")
        with h5py.File(path, "w") as file:
            space = h5py.h5s.create_simple((1 << 58,))
            h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space)
        started = time.monotonic()
        status, _, message = self.run_main(path, "-o", self.output)
        self.assertEqual(status, 3, message)
        self.assertLess(time.monotonic() - started, 30)

    def test_truncated_and_damaged(self):
        good, source = h5(tiny(**KIND)), random.Random(7)
        for size in (8, 9, 100, 1000, len(good) // 2, len(good) - 1):
            status, _, message = self.run_main(self.path("in", good[:size]), "-o", self.output)
            self.assertEqual(status, 3, message)
        for _ in range(10):
            data = bytearray(good)
            for _ in range(8):
                data[source.randrange(2000)] ^= 1 << source.randrange(8)
            status, _, message = self.run_main(self.path("in", bytes(data)), "-o", self.output)
            self.assertIn(status, (0, 3), message)

    def test_lister(self):
        """What the other process says is checked as the file is."""
        path = self.path("in", h5(tiny(**KIND)))
        size = os.path.getsize(path)
        for code, reason in (("import os; os.abort()", "crashes or stalls the HDF5 library"), ("print('no'); exit(1)", "no"),
                             ("print('{}x')", "no valid JSON"), ("exit(5)", "python3-h5py"),
                             ("print('x' * (5 << 20))", "lists more"),
                             (f'print(\'{{"conv1_conv/kernel":["<f4",[4],{size - 15},16]}}\')',
                              "lies outside the file: 16 bytes"),
                             ('print(\'{"conv1_conv/kernel":["<f4",[4],-1,16]}\')', "lies outside the file"),
                             ('print(\'{"conv1_conv/kernel":["<f4",[5],0,16]}\')', "is 5 float32, but has 16 bytes"),
                             ('print(\'{"conv1_conv/kernel":["<f4",[-4],0,16]}\')', "is -4 float32"),
                             ('print(\'{"a/b:0":["<f4",[4],0,16],"a/b":["<f4",[4],0,16]}\')',
                              "two weights called a/b")):
            with mock.patch.object(keras, "LISTER", self.path("lister.py", code.encode())):
                status, _, message = self.run_main(path, "-o", self.output)
            self.assertIn(reason, message)
            self.assertEqual(status, 4 if "exit(5)" in code else 3, message)

    def test_lister_that_hangs(self):
        path = self.path("in", h5(tiny(**KIND)))
        lister = self.path("lister.py", b"import time; time.sleep(60)")
        with mock.patch.object(keras, "LISTER", lister), mock.patch.object(keras, "MAX_SECONDS", 0.5):
            self.assertIn("cannot be listed", self.run_main(path, "-o", self.output)[2])


if __name__ == "__main__":
    unittest.main()
