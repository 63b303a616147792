#!/usr/bin/env python3
"""Drive `resnet teach` from outside: what it learns and writes, what it refuses, that a kill leaves no half of a model.

The environment variable RESNET_PROGRAM names the program. The network has one random block and is given pictures of one
colour a class, with noise. Where scikit-learn is installed, its LogisticRegression finds the same weights.
"""
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
import zlib

import test_program as base
from test_program import INPUTS, IO, MODEL, OK, USAGE, resnet

try:
    import numpy
    from sklearn.linear_model import LogisticRegression
except ImportError:
    LogisticRegression = None

COLOURS = {"blue sky": (40, 90, 230), "Gräser": (60, 200, 50), "rust": (190, 70, 40)}
WIDTH = 8  # features of the network
VIEWS = 6
HEADER = 256


def picture(colour, seed, size=(40, 36)):
    """A PNG of this colour, with noise."""
    rng = random.Random(f"{colour} {seed}")

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(
        b"\0" + bytes(min(255, max(0, c + rng.randrange(-60, 61))) for _ in range(size[0]) for c in colour)
        for _ in range(size[1]))
    header = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def without_head(model):
    """The same network with nothing behind the average pool, and no labels."""
    classes, labels_size = struct.unpack_from("<I", model, 84)[0], struct.unpack_from("<I", model, 96)[0]
    tensors = HEADER + labels_size + -(HEADER + labels_size) % 64
    head = (classes * WIDTH * 4 + 63) // 64 * 64 + (classes * 4 + 63) // 64 * 64
    model = bytearray(model[:HEADER] + model[tensors:len(model) - head])
    model[37] = 2
    struct.pack_into("<I", model, 84, 0)
    struct.pack_into("<I", model, 96, 0)
    struct.pack_into("<Q", model, 16, len(model))
    return base.seal(model)


def classifier_of(model, classes):
    """Weights [classes][WIDTH] and biases at the end of an f32 file."""
    bias = (classes * 4 + 63) // 64 * 64
    weight = (classes * WIDTH * 4 + 63) // 64 * 64
    start = len(model) - bias - weight
    return (struct.unpack_from(f"<{classes * WIDTH}f", model, start),
            struct.unpack_from(f"<{classes}f", model, len(model) - bias))


class TeachTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.backbone_bytes = base.tiny_model(width=WIDTH)
        self.backbone = self.write("backbone.resnet", self.backbone_bytes)
        self.new = self.path("new.resnet")

    def path(self, *names):
        return os.path.join(self.temporary.name, *names)

    def write(self, name, data):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def pictures(self, folder, count=10, first=0, labels=COLOURS):
        for label in labels:
            for i in range(first, first + count):
                self.write(f"{folder}/{label}/{i}.png", picture(COLOURS[label], i))
        return self.path(folder)

    def teach(self, *arguments, code=OK, backbone=None):
        """Run it: its report, and what it said on stderr."""
        got, out, err = resnet("teach", "--model", backbone or self.backbone, "-o", self.new, "--json", *arguments)
        self.assertEqual(got, code, err)
        return json.loads(out) if out else None, err

    def eval(self, folder, model=None):
        code, out, err = resnet("eval", "--json", "--model", model or self.new, "--folders", folder)
        self.assertEqual(code, OK, err)
        return json.loads(out)


class Learn(TeachTest):
    def test_learns_and_reports(self):
        report, err = self.teach(self.pictures("train"))
        self.assertEqual(err, "")
        self.assertEqual((report["classes"], report["photographs"], report["views_of_each"]), (3, 30, VIEWS))
        self.assertEqual((report["held_out"], report["failed"], report["folds"]), (6, 0, 5))
        self.assertEqual(report["accuracy"], report["right"] / 6)
        self.assertLess(report["interval"][0], report["accuracy"] + 1e-6)
        self.assertEqual(len(report["doubtful"]), 6)
        beliefs = [each["probability"] for each in report["doubtful"]]
        self.assertEqual(beliefs, sorted(beliefs))
        for each in report["doubtful"]:
            self.assertIn(each["label"], COLOURS)
            self.assertTrue(os.path.exists(each["file"]))
        self.assertGreater(self.eval(self.pictures("test", first=100))["top1"], 0.9)

    def test_the_file_is_the_backbone_with_another_end(self):
        self.teach(self.pictures("train"))
        new, old = self.read(self.new), self.backbone_bytes
        copied = 3 * 9 * WIDTH * 4  # somewhere in the middle of a convolution's weights
        place = old.index(old[len(old) // 2:len(old) // 2 + copied])
        self.assertIn(old[place:place + copied], new)
        self.assertEqual(base.seal(new), new)
        self.assertEqual(struct.unpack_from("<I", new, 84), (3,))
        labels = "".join(label + "\n" for label in sorted(COLOURS, key=str.encode)).encode()
        self.assertEqual(new[HEADER:HEADER + len(labels)], labels)

    def test_same_bytes_for_a_seed_and_any_threads(self):
        train, files = self.pictures("train"), []
        for arguments in (("--threads", "1"), ("--threads", "3"), ("--seed", "5")):
            report, _ = self.teach(train, *arguments)
            files.append((self.read(self.new), report["doubtful"]))
        self.assertEqual(files[0], files[1])
        self.assertNotEqual(files[0][1], files[2][1])

    def test_every_precision(self):
        train, test = self.pictures("train"), self.pictures("test", first=100)
        for precision, arguments in (("bf16", ()), ("int8", ("--calibrate", train))):
            small = self.path(precision)
            code, _, err = resnet("quantize", "--model", self.backbone, "--precision", precision, *arguments, "-o", small)
            self.assertEqual(code, OK, err)
            self.teach(train, backbone=small)
            self.assertGreater(self.eval(test)["top1"], 0.9)
            self.assertEqual(self.read(self.new)[38], self.read(small)[38])
        self.teach(train, "--precision", "bf16")
        self.assertEqual(self.read(self.new)[38], 0)
        self.assertGreater(self.eval(test)["top1"], 0.9)

    def test_taught_models_are_quantized_and_taught_again(self):
        train, test = self.pictures("train"), self.pictures("test", first=100)
        self.teach(train)
        small, again = self.path("small.resnet"), self.path("again.resnet")
        code, _, err = resnet("quantize", "--model", self.new, "--calibrate", train, "-o", small)
        self.assertEqual(code, OK, err)
        self.assertGreater(self.eval(test, small)["top1"], 0.9)
        code, _, err = resnet("teach", train, "--model", self.new, "-o", again)
        self.assertEqual(code, OK, err)
        self.assertGreater(self.eval(test, again)["top1"], 0.9)

    def test_backbone_without_a_head(self):
        report, _ = self.teach(self.pictures("train"), backbone=self.write("bare", without_head(self.backbone_bytes)))
        self.assertEqual(report["near_to"], "zero")
        self.assertGreater(self.eval(self.pictures("test", first=100))["top1"], 0.9)

    def test_resize_is_the_new_models(self):
        self.teach(self.pictures("train"), "--resize", "32", "--augment", "none")
        self.assertEqual(struct.unpack_from("<I", self.read(self.new), 92), (32,))

    def test_augment(self):
        train = self.pictures("train", count=3)
        for augment, views in (("none", 1), ("flip", 2), ("crops", 5), ("crops,flip", 6)):
            self.assertEqual(self.teach(train, "--augment", augment)[0]["views_of_each"], views)

    def test_for_people(self):
        code, out, err = resnet("teach", self.pictures("train"), "--model", self.backbone, "-o", self.new)
        self.assertEqual((code, err), (OK, ""))
        self.assertIn("accuracy", out.decode())
        self.assertIn("most doubtful", out.decode())

    def test_unequal_classes(self):
        self.pictures("train", count=30, labels=["rust"])
        train = self.pictures("train", count=4, labels=["blue sky", "Gräser"])
        self.teach(train)
        matrix = self.eval(self.pictures("test", first=100))["confusion_matrix"]
        for i, row in enumerate(matrix):
            self.assertGreaterEqual(row[i], 8, matrix)


class Refuse(TeachTest):
    def refused(self, code, said, *arguments, backbone=None):
        _, err = self.teach(*arguments, code=code, backbone=backbone)
        self.assertIn(said, err)
        self.assertFalse(os.path.exists(self.new))

    def test_one_class_or_none(self):
        self.refused(IO, "1 folders", self.pictures("train", labels=["rust"]))
        self.refused(IO, "0 folders", self.pictures("train", labels=["rust"]) + "/rust")
        self.refused(IO, "cannot be read", self.path("absent"))

    def test_empty_class(self):
        train = self.pictures("train")
        os.mkdir(self.path("train", "void"))
        self.refused(IO, 'class "void" has no photograph', train)

    def test_class_of_broken_files(self):
        train = self.pictures("train")
        self.write("train/void/1.png", b"no picture")
        self.refused(INPUTS, 'class "void" has no photograph', train)

    def test_broken_files_are_named_and_left_out(self):
        train = self.pictures("train")
        broken = self.write("train/rust/zzz.jpg", picture((1, 2, 3), 1)[:-40])
        report, err = self.teach(train, code=INPUTS)
        self.assertIn(broken, err)
        self.assertEqual((report["failed"], report["photographs"]), (1, 30))
        self.assertGreater(self.eval(self.pictures("test", first=100))["top1"], 0.9)

    def test_copies(self):
        train = self.pictures("train")
        self.write("train/rust/copy.png", picture(COLOURS["rust"], 3))
        report, err = self.teach(train)
        self.assertEqual((report["copies"], report["disputed"], report["photographs"]), (1, 0, 30))
        self.assertIn("the same picture as", err)
        self.write("train/blue sky/copy.png", picture(COLOURS["rust"], 4))
        report, err = self.teach(train, code=INPUTS)
        self.assertEqual((report["copies"], report["disputed"], report["photographs"]), (1, 2, 29))
        self.assertIn("but of another class", err)
        self.assertIn("blue sky/copy.png", err)

    def test_few_photographs(self):
        report, err = self.teach(self.pictures("train", count=1))
        self.assertEqual((report["held_out"], report["folds"]), (0, 0))
        self.assertIn("too few photographs to hold any out", err)
        report, err = self.teach(self.pictures("train", count=3))
        self.assertEqual((report["held_out"], report["folds"]), (3, 2))  # two of each class are left

    def test_usage(self):
        train = self.pictures("train", count=1)
        for said, *arguments in (
                ("one of a folder", ), ("one of a folder", train, "--from", "x"), ("unexpected", train, train),
                ("share from 0%", train, "--holdout", "20"), ("share from 0%", train, "--holdout", "95%"),
                ("number above 0", train, "--strength", "0"), ("number above 0", train, "--strength", "1x"),
                ("takes flip", train, "--augment", "flop"), ("--keep does not", "--multilabel", "x", "--keep", "y"),
                ("keeps nothing of the photographs", train, "--add", f"rust={train}")):
            self.refused(USAGE, said, *arguments)
        self.assertEqual(resnet("teach", train, "--model", self.backbone)[0], USAGE)

    def test_output_that_cannot_be_written(self):
        train = self.pictures("train", count=2)
        code, _, err = resnet("teach", train, "--model", self.backbone, "-o", self.path("absent", "new"))
        self.assertEqual(code, IO, err)
        self.write("new.resnet", b"older")
        code, _, err = resnet("teach", train, "--model", self.backbone, "-o", self.new,
                              preexec_fn=base.no_space_in_files)
        self.assertEqual(code, IO, err)
        self.assertEqual(self.read(self.new), b"older")
        self.assertEqual([name for name in os.listdir(self.temporary.name) if name.endswith(".part")], [])

    def test_bad_backbone(self):
        train = self.pictures("train", count=2)
        self.refused(MODEL, "not a model file", train, backbone=self.write("bad", bytes(300)))
        self.refused(IO, "cannot be opened", train, backbone=self.path("absent"))

    def test_a_kill_leaves_the_old_file_or_the_new_one(self):
        train = self.pictures("train", count=4)
        start = time.monotonic()
        self.teach(train)
        seconds = time.monotonic() - start
        whole = self.read(self.new)
        for i in range(12):
            self.write("new.resnet", b"older")
            with subprocess.Popen([base.PROGRAM, "teach", train, "--model", self.backbone, "-o", self.new],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                time.sleep(seconds * (i + 1) / 12)
                process.send_signal(signal.SIGKILL)
            self.assertIn(self.read(self.new), (b"older", whole))


class Tags(TeachTest):
    def table(self, count=12):
        lines = ["file\tlabels"]
        for i in range(count):
            for label in COLOURS:
                self.write(f"p/{label}{i}.png", picture(COLOURS[label], i))
                more = "\twarm" if label == "rust" else "\tcold" + ("\tsoft" if label == "Gräser" else "")
                lines.append(f"p/{label}{i}.png{more}")
            self.write(f"p/none{i}.png", picture((200, 200, 200), i))
            lines.append(f"p/none{i}.png")
        return self.write("table.tsv", "\n".join(lines).encode())

    def test_learns_tags(self):
        report, _ = self.teach("--multilabel", self.table())
        self.assertEqual((report["classes"], report["photographs"]), (3, 48))
        self.assertEqual(self.read(self.new)[37], 1)
        by_label = {each["label"]: each for each in report["labels"]}
        self.assertEqual(set(by_label), {"warm", "cold", "soft"})
        self.assertGreater(report["accuracy"], 0.7)
        for each in by_label.values():
            self.assertLessEqual(each["found"], each["there"])

    def test_bad_tables(self):
        everywhere = "".join(f"{self.write(f'{i}.png', picture((9, 9, 9), i))}\ta\n" for i in range(4))
        for code, said, table in ((IO, "a tab and a label", b"a.png\n"), (IO, "NUL", b"a\0\tb\n"),
                                  (USAGE, "right for every photograph", everywhere.encode())):
            _, err = self.teach("--multilabel", self.write("bad.tsv", table), "--holdout", "0%", code=code)
            self.assertIn(said, err)


class Add(TeachTest):
    def setUp(self):
        super().setUp()
        self.kept = self.path("kept")
        self.first = self.pictures("first", labels=["blue sky", "Gräser"])
        self.pictures("second", labels=["rust"])
        self.teach(self.first, "--keep", self.kept)

    def test_added_classes_are_as_if_taught_together(self):
        for label in ("blue sky", "Gräser"):
            for i in range(10):
                os.unlink(self.path("first", label, f"{i}.png"))  # not needed any more
        report, _ = self.teach("--from", self.kept, "--add", "rust=" + self.path("second", "rust"), "--holdout", "0%",
                               "--strength", "1")
        self.assertEqual((report["classes"], report["photographs"]), (3, 30))
        added = self.read(self.new)
        # The order of classes differs, and with it that of sums: compare the weights, class by class.
        self.teach(self.pictures("all"), "--holdout", "0%", "--strength", "1")
        together = self.read(self.new)
        order = {"Gräser": 0, "blue sky": 1, "rust": 2}
        a, b = classifier_of(added, 3), classifier_of(together, 3)
        for i, each in enumerate(self.labels(added)):
            j = order[each]
            for k in range(WIDTH):
                self.assertAlmostEqual(a[0][i * WIDTH + k], b[0][j * WIDTH + k], delta=1e-4)
        self.assertGreater(self.eval(self.pictures("test", first=100))["top1"], 0.9)

    def labels(self, model):
        size = struct.unpack_from("<I", model, 96)[0]
        return model[HEADER:HEADER + size].decode().split("\n")[:-1]

    def test_more_photographs_of_a_class_and_a_second_time(self):
        more, kept = self.pictures("more", count=3, first=50, labels=["Gräser"]), self.path("kept2")
        report, _ = self.teach("--from", self.kept, "--add", f"Gräser={more}/Gräser", "--keep", kept)
        self.assertEqual((report["classes"], report["photographs"]), (2, 23))
        report, _ = self.teach("--from", kept, "--add", "rust=" + self.path("second", "rust"))
        self.assertEqual((report["classes"], report["photographs"]), (3, 33))
        self.assertGreater(self.eval(self.pictures("test", first=100))["top1"], 0.9)

    def test_copies_of_old_photographs_are_told(self):
        self.write("copy/1.png", picture(COLOURS["Gräser"], 3))
        self.write("copy/2.png", picture((1, 1, 1), 3))
        report, err = self.teach("--from", self.kept, "--add", "other=" + self.path("copy"), code=INPUTS)
        self.assertIn("but of another class", err)
        self.assertEqual(report["disputed"], 2)

    def test_another_network_or_precision_is_refused(self):
        os.unlink(self.new)
        other = self.write("other", base.tiny_model(classes=3, labels=("a", "b", "c"), width=WIDTH))
        add = "rust=" + self.path("second", "rust")
        _, err = self.teach("--from", self.kept, "--add", add, code=MODEL, backbone=other)
        self.assertIn("made with another network", err)
        _, err = self.teach("--from", self.kept, "--add", add, "--precision", "bf16", code=USAGE)
        self.assertIn("made in f32", err)
        for bad in ("rust", "=x", "rust="):
            _, err = self.teach("--from", self.kept, "--add", bad, code=IO)
            self.assertIn("takes CLASS=FOLDER", err)
        self.assertFalse(os.path.exists(self.new))

    def test_damaged_embeddings_are_refused(self):
        whole = self.read(self.kept)
        for place in (*range(0, 64, 3), 70, len(whole) // 2, len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 0x81
            _, err = self.teach("--from", self.write("damaged", bytes(damaged)), code=MODEL)
            self.assertIn("damaged", err)
        for size in (0, 10, 63, 64, len(whole) - 4):
            self.teach("--from", self.write("short", whole[:size]), code=MODEL)

    def test_hostile_embeddings_are_refused(self):
        """The checksum made right: numbers that are out of range, or do not fit to each other."""
        whole = bytearray(self.read(self.kept))
        text_size = struct.unpack_from("<I", whole, 48)[0]
        classes = 64 + (text_size + 7) // 8 * 8 + 20 * 8
        for place, value in ((24, 9), (28, 4), (32, 1 << 20), (36, 0), (36, 1 << 31), (40, 0), (40, 1), (40, 21),
                             (44, 0), (44, 1 << 31), (44, 21), (48, 0), (48, 1 << 31), (64, 0), (classes, 2)):
            bad = bytearray(whole)
            struct.pack_into("<I", bad, place, value)
            struct.pack_into("<I", bad, 12, base.crc32c(bad[16:]))
            _, err = self.teach("--from", self.write("hostile", bytes(bad)), code=MODEL)


@unittest.skipUnless(LogisticRegression, "scikit-learn is not installed")
class ScikitLearn(TeachTest):
    def test_the_same_weights(self):
        warnings.simplefilter("ignore")  # that theirs goes on to where rounding stops it
        self.pictures("train", count=14, labels=["rust"])
        self.pictures("train", count=6, labels=["blue sky", "Gräser"])
        kept = self.path("kept")
        for strength in (0.05, 1, 50):
            self.teach(self.path("train"), "--from-zero", "--strength", str(strength), "--keep", kept, "--holdout", "0%")
            data = self.read(kept)
            features, classes, count, text_size = struct.unpack_from("<4I", data, 36)
            start = 64 + (text_size + 7) // 8 * 8 + count * 8
            labels = numpy.frombuffer(data, "<u4", count, start)
            values = numpy.frombuffer(data, "<f4", count * VIEWS * features, start + (count * 4 + 7) // 8 * 8)
            theirs = LogisticRegression(
                C=strength, class_weight="balanced", tol=1e-8, max_iter=1000, solver="newton-cg")
            theirs.fit(values.reshape(-1, features).astype(float), numpy.repeat(labels, VIEWS),
                       sample_weight=numpy.full(count * VIEWS, 1 / VIEWS))
            weight, bias = classifier_of(self.read(self.new), classes)
            # Ours are rounded to f32, by 6e-8 of each; and both stop where the gradient is small, not 0.
            scale = numpy.abs(theirs.coef_).max()
            numpy.testing.assert_allclose(numpy.reshape(weight, (classes, features)), theirs.coef_, atol=2e-6 * scale)
            ours = numpy.array(bias) - numpy.mean(bias)
            other = theirs.intercept_ - theirs.intercept_.mean()
            numpy.testing.assert_allclose(ours, other, atol=1e-5 * max(1, numpy.abs(other).max()))


if __name__ == "__main__":
    if not base.PROGRAM:
        print("RESNET_PROGRAM does not name the program")
        sys.exit(77)
    unittest.main()
