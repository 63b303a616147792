#!/usr/bin/env python3
"""Drive what looks inside networks from outside: resnet embed, features, explain and similar.

The environment variable RESNET_PROGRAM names the program. The model and the pictures are those of test_program.py.
"""
import json
import os
import re
import shutil
import struct
import sys
import unittest
import zlib

from test_program import INPUTS, IO, LABELS, MODEL, OK, PROGRAM, USAGE
import test_program as program

try:
    import numpy as np
except ImportError:
    print("skipped: NumPy is not installed for this Python")
    sys.exit(77)

COMMANDS = "embed", "features", "explain", "similar"
COLUMNS = ["file", "bytes", "modified", "model", "check"]
WIDTH = 8  # channels of the tiny model, and features of its embeddings


def read_table(path):
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    assert rows[0] == COLUMNS, rows[0]
    return [dict(zip(COLUMNS, row)) for row in rows[1:]]


def read_png(path):
    """[height][width][3] of an 8-bit RGB file without interlacing; checksums are checked."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, compressed = 8, b""
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0] == zlib.crc32(name + body)
        if name == b"IHDR":
            width, height, *kind = struct.unpack(">IIBBBBB", body)
            assert kind == [8, 2, 0, 0, 0]
        compressed += body if name == b"IDAT" else b""
        at += 12 + size
    rows = np.frombuffer(zlib.decompress(compressed), np.uint8).reshape(height, 1 + 3 * width)
    return unfilter(rows).reshape(height, width, 3)


def unfilter(rows):
    out = np.zeros((len(rows) + 1, rows.shape[1] + 2), int)  # with a row above and a pixel to the left
    for y, (kind, *row) in enumerate(rows.tolist(), 1):
        for x, value in enumerate(row, 3):
            left, up, corner = out[y, x - 3], out[y - 1, x], out[y - 1, x - 3]
            paeth = min((left, up, corner), key=lambda near: abs(left + up - corner - near))
            out[y, x] = (value + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
    return out[1:, 3:]


def headless(model):
    """The same network without its classifier."""
    model = bytearray(model[:-(len(LABELS) * WIDTH * 4 + 64)])
    labels = struct.unpack_from("<I", model, 96)[0]
    struct.pack_into("<Q", model, 16, len(model) - labels_room(labels))
    struct.pack_into("<I", model, 84, 0)
    struct.pack_into("<I", model, 96, 0)
    model[37] = 2
    return program.seal(bytes(model[:256]) + bytes(model[256 + labels_room(labels):]))


def labels_room(size):
    return size + -size % 64


def grey(model):
    """The same network for one channel: the first third of its first weights."""
    header = bytearray(model[:256])
    labels = labels_room(struct.unpack_from("<I", model, 96)[0])
    start, many, few = 256 + labels, labels_room(4 * WIDTH * 3 * 49), labels_room(4 * WIDTH * 49)
    struct.pack_into("<I", header, 72, 1)
    struct.pack_into("<Q", header, 16, len(model) - many + few)
    for first in 128, 192:
        header[first + 4:first + 12] = bytes(8)
    weights = model[start:start + 4 * WIDTH * 49]
    return program.seal(bytes(header) + model[256:start] + weights + bytes(few - len(weights)) + model[start + many:])


class InsideTest(program.ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.headless = cls.write("headless.resnet", headless(cls.model_bytes))
        cls.grey = cls.write("grey.resnet", grey(cls.model_bytes))

    def setUp(self):
        self.own = self.path(self.id())
        os.mkdir(self.own)

    def at(self, name):
        return os.path.join(self.own, name)

    def run_it(self, command, *arguments, code=OK, model=None, **options):
        got, out, err = program.resnet(command, "--model", model or self.model, *arguments, **options)
        self.assertEqual(got, code, err)
        self.assertNotIn("Sanitizer", err)
        return out.decode(), err

    def embed(self, *arguments, **options):
        """The matrix, the rows of the table, and what was said."""
        _, err = self.run_it("embed", *arguments, "-o", self.at("all.npy"), **options)
        return np.load(self.at("all.npy")), read_table(self.at("all.tsv")), err

    def answers(self, command, *arguments, **options):
        return [json.loads(line) for line in self.run_it(command, "--json", *arguments, **options)[0].splitlines()]

    def features(self, *arguments, **options):
        self.run_it("features", "--level", "C2", "-o", self.at("map.npy"), *arguments, **options)
        return np.load(self.at("map.npy"))

    def classifier(self):
        """The weights [classes][features] of the model's last layer."""
        size = len(LABELS) * WIDTH * 4
        return np.frombuffer(self.model_bytes[-size - 64:-64], "<f4").reshape(-1, WIDTH)


class Usage(InsideTest):
    def test_help(self):
        for command in COMMANDS:
            code, out, err = program.resnet("help", command)
            self.assertEqual((code, err), (OK, ""))
            self.assertTrue(all(len(line.decode()) <= 100 for line in out.splitlines()), out.decode())
            self.assertIn(command.encode(), program.resnet("--help")[1])

    def test_mistakes(self):
        image, made = self.images[0], self.at("made")
        for arguments in (["embed", image], ["embed", "-o", made], ["embed", image, "--json", "-o", made],
                          ["embed", "--json", "-", "-"], ["features", "--level", "C4", image],
                          ["features", "--level", "C6", image, "-o", made], ["features", image, "-o", made],
                          ["features", "--level", "C2", "-o", made], ["features", "--level", "C2", "a", "b", "-o", made],
                          ["features", "--level", "C2", "--layout", "NCHW", image, "-o", made],
                          ["explain"], ["explain", "a", "b"], ["similar", image], ["similar", "--in", self.own],
                          ["similar", image, "--in", self.own, "--top", "0"]):
            with self.subTest(arguments):
                code, out, err = program.resnet(*arguments)
                self.assertEqual((code, out), (USAGE, b""), err)
                self.assertEqual(os.listdir(self.own), [])

    def test_networks_that_take_no_photographs(self):
        for arguments in (["embed", "--json"], ["features", "--level", "C2", "-o", self.at("x")], ["explain"],
                          ["similar", "--in", self.own]):
            _, err = self.run_it(*arguments, self.images[0], model=self.grey, code=MODEL)
            self.assertIn("the network takes 1 channels, and an image has 3", err)


class Embed(InsideTest):
    def test_matrix_and_table(self):
        matrix, table, err = self.embed(*self.images)
        self.assertEqual((matrix.shape, matrix.dtype, err), ((len(self.images), WIDTH), np.float32, ""))
        self.assertEqual([row["file"] for row in table], self.images)
        for row in table:
            status = os.stat(row["file"])
            self.assertEqual(int(row["bytes"]), status.st_size)
            self.assertEqual(row["modified"], f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09}")
        self.assertEqual({row["model"] for row in table}, {table[0]["model"]})
        self.assertRegex(table[0]["model"], "^[0-9a-f]{16}/34/f32$")

    def test_embeddings_give_the_logits(self):
        matrix, _, _ = self.embed(*self.images)
        logits = np.array([a["logits"] for a in self.answers("classify", "--logits", *self.images)])
        # Sums of 8 products in another order: some roundings of the largest.
        np.testing.assert_allclose(matrix @ self.classifier().T, logits, atol=1e-6 * abs(logits).max())

    def test_json_is_the_matrix(self):
        matrix, _, _ = self.embed(*self.images)
        answers = self.answers("embed", *self.images)
        self.assertEqual([answer["file"] for answer in answers], self.images)
        self.assertTrue((np.array([answer["embedding"] for answer in answers], np.float32) == matrix).all())

    def test_broken_images_have_no_row(self):
        broken = self.write("broken.png", b"no picture")
        files = [self.images[0], broken, self.images[1], self.path("absent.png")]
        matrix, table, err = self.embed(*files, code=INPUTS)
        self.assertEqual([row["file"] for row in table], self.images[:2])
        self.assertTrue((matrix == self.embed(*self.images[:2])[0]).all())
        self.assertEqual(len(err.splitlines()), 2)
        self.assertEqual(["error" in answer for answer in self.answers("embed", *files, code=INPUTS)],
                         [False, True, False, True])
        matrix, table, _ = self.embed(broken, code=INPUTS)
        self.assertEqual((matrix.shape, table), ((0, WIDTH), []))

    def test_lists_and_stdin(self):
        listing = "\n".join(self.images * 9).encode()
        matrix, table, _ = self.embed("--files-from", "-", input=listing)
        self.assertEqual([row["file"] for row in table], self.images * 9)
        self.assertTrue((matrix == np.tile(self.embed(*self.images)[0], (9, 1))).all())
        with open(self.images[0], "rb") as file:
            matrix, table, _ = self.embed("-", stdin=file)
        self.assertTrue((matrix == self.embed(self.images[0])[0]).all())
        self.assertEqual((table[0]["file"], table[0]["bytes"], table[0]["modified"]), ("-", "-", "-"))

    def test_a_list_that_ends_badly_leaves_no_file(self):
        self.run_it("embed", "--files-from", "-", "-o", self.at("all.npy"), input=self.images[0].encode() + b"\na\0b\n",
                    code=IO)
        self.assertEqual(os.listdir(self.own), [])

    def test_names_that_a_table_cannot_hold(self):
        for name in "tab\t.png", "new\nline.png":
            path = self.write(name, program.png(1))
            _, table, err = self.embed(path, self.images[0], code=INPUTS)
            self.assertEqual([row["file"] for row in table], self.images[:1])
            self.assertIn("a table of names cannot hold this one", err)
            self.assertEqual(len(self.answers("embed", path)), 1)

    def test_without_a_head(self):
        self.assertTrue((self.embed(*self.images, model=self.headless)[0] == self.embed(*self.images)[0]).all())

    def test_a_full_disk_leaves_the_old_files(self):
        for ending in "npy", "tsv":
            self.write(self.at("all." + ending), b"older")
        self.run_it("embed", self.images[0], "-o", self.at("all.npy"), code=IO, preexec_fn=program.no_space_in_files)
        self.assertEqual(sorted(os.listdir(self.own)), ["all.npy", "all.tsv"])
        with open(self.at("all.npy"), "rb") as file:
            self.assertEqual(file.read(), b"older")


class Features(InsideTest):
    def test_map_of_one_image(self):
        values = self.features(self.images[0])
        self.assertEqual((values.shape, values.dtype), ((WIDTH, 8, 8), np.float32))
        mean = values.mean((1, 2), dtype=np.float64)
        # A mean of 64 numbers in f32.
        np.testing.assert_allclose(self.embed(self.images[0])[0][0], mean, atol=1e-6 * mean.max())

    def test_layouts_differ_in_order_only(self):
        values = self.features(self.images[0])
        self.assertTrue((self.features(self.images[0], "--layout", "nhwc") == values.transpose(1, 2, 0)).all())
        self.assertTrue((self.features(self.images[0], model=self.headless) == values).all())

    def test_report(self):
        answer = self.answers("features", "--level", "C2", self.images[0], "-o", self.at("map.npy"))
        self.assertEqual(answer, [{"level": "C2", "channels": WIDTH, "height": 8, "width": 8, "stride": 4}])
        self.assertIn("stride              4",
                      self.run_it("features", "--level", "C2", self.images[0], "-o", self.at("map.npy"))[0])

    def test_what_cannot_be_done_leaves_no_file(self):
        made = self.at("map.npy")
        _, err = self.run_it("features", "--level", "C5", self.images[0], "-o", made, code=MODEL)
        self.assertIn("stage", err)
        self.run_it("features", "--level", "C2", self.path("absent.png"), "-o", made, code=IO)
        self.run_it("features", "--level", "C2", self.images[0], "-o", self.at("absent/map.npy"), code=IO)
        self.run_it("features", "--level", "C2", self.images[0], "-o", made, code=IO,
                    preexec_fn=program.no_space_in_files)
        self.assertEqual(os.listdir(self.own), [])


class Explain(InsideTest):
    def explain(self, *arguments, **options):
        return self.answers("explain", self.images[0], *arguments, **options)[0]

    def cam(self, index):
        return np.tensordot(self.classifier()[index], self.features(self.images[0]), 1)

    def test_the_best_class(self):
        best = self.answers("classify", self.images[0])[0]["top"][0]
        answer = self.explain()
        for key in best:
            self.assertEqual(answer[key], best[key])
        text, _ = self.run_it("explain", self.images[0])
        self.assertRegex(text, f"(?m)^  label +{re.escape(best['label'])}$")

    def test_the_peak_is_that_of_the_map(self):
        for index, label in enumerate(LABELS):
            answer, cam = self.explain("--class", label), self.cam(index)
            self.assertEqual(answer["index"], index)
            if cam.max() <= 0:
                self.assertEqual((answer["peak"], answer["peak_x"]), (0, None))
                continue
            # Sums of 8 products in another order.
            self.assertAlmostEqual(answer["peak"] / cam.max(), 1, 5)
            row, column = np.unravel_index(cam.argmax(), cam.shape)
            # 40 x 36 pixels become 37 x 34, of which 32 x 32 are seen from (2, 1) on; a value is 4 pixels wide.
            self.assertAlmostEqual(answer["peak_x"], (2 + 4 * (column + 0.5)) * 40 / 37, 5)
            self.assertAlmostEqual(answer["peak_y"], (1 + 4 * (row + 0.5)) * 36 / 34, 5)

    def test_names_of_classes(self):
        for text, index in ("Käfer", 2), ("FLY", 3), ("an", 0), ("3", 3), ("BEE", 1), ("fer", 2):
            self.assertEqual(self.explain("--class", text)["index"], index, text)
        for text, *hints in (("antt", '"ant" (0)'), ("4", '"ant" (0)'), ("a", "may be any of 3", '"dragonfly" (3)'),
                             ("dragonflies", '"dragonfly" (3)'), ("\x1b[31m" * 99, "?[31m")):
            _, err = self.run_it("explain", self.images[0], "--class", text, code=USAGE)
            for hint in hints:
                self.assertIn(hint, err)
            self.assertNotIn("\x1b", err)
        unlabelled = self.write("unlabelled.resnet", program.tiny_model(labels=()))
        self.assertEqual(self.explain("--class", "3", model=unlabelled)["label"], "class 3")
        self.assertIn("indices from 0 to 3",
                      self.run_it("explain", self.images[0], "--class", "ant", model=unlabelled, code=USAGE)[1])
        twice = self.write("twice.resnet", program.tiny_model(labels=("crane", "ant", "crane", "bee")))
        self.assertIn("(2)", self.run_it("explain", self.images[0], "--class", "crane", model=twice, code=USAGE)[1])

    def test_overlay(self):
        photograph = read_png(self.images[0])
        self.assertEqual(photograph.shape, (36, 40, 3))
        index = max(range(len(LABELS)), key=lambda i: self.cam(i).max())
        self.run_it("explain", self.images[0], "--class", str(index), "-o", self.at("overlay.png"))
        overlay, cam = read_png(self.at("overlay.png")), self.cam(index)
        self.assertEqual(overlay.shape, photograph.shape)
        rows, columns = np.mgrid[:36, :40]
        y, x = (rows + 0.5) * 34 / 36 - 1, (columns + 0.5) * 37 / 40 - 2  # in the input of 32 x 32
        seen = (y >= 0) & (y < 32) & (x >= 0) & (x < 32)
        self.assertTrue((np.ptp(overlay[~seen], 1) == 0).all())  # grey
        changed = (overlay != photograph).any(2)
        hot = cam[np.clip(y // 4, 0, 7).astype(int), np.clip(x // 4, 0, 7).astype(int)] / cam.max()
        self.assertTrue(changed[seen & (hot > 0.9)].all())
        cold = np.pad(cam, 1, "edge")
        around = max_around(cold)[np.clip(y // 4, 0, 7).astype(int), np.clip(x // 4, 0, 7).astype(int)]
        self.assertFalse(changed[seen & (around <= 0)].any())

    def test_refusals(self):
        made = self.at("overlay.png")
        _, err = self.run_it("explain", self.images[0], "-o", made, model=self.headless, code=MODEL)
        self.assertIn("no classifier", err)
        self.run_it("explain", self.write("broken.png", b"no picture"), "-o", made, code=INPUTS)
        self.run_it("explain", self.images[0], "-o", "/dev/null", code=IO)
        self.run_it("explain", self.images[0], "-o", made, code=IO, preexec_fn=program.no_space_in_files)
        self.assertEqual(os.listdir(self.own), [])


def max_around(padded):
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    return np.max([padded[y:y + height, x:x + width] for y in range(3) for x in range(3)], axis=0)


class Similar(InsideTest):
    def setUp(self):
        super().setUp()
        self.pictures = self.at("pictures")
        for seed in range(4):
            self.write(f"{self.pictures}/{seed}.png", program.png(seed))
        for name in "sub/4.PNG", "sub/.hidden.png", "notes.txt":
            self.write(f"{self.pictures}/{name}", program.png(4))
        self.names = ["0.png", "1.png", "2.png", "3.png", "sub/4.PNG"]
        self.index = self.pictures + "/.resnet-index.npy"

    def similar(self, *arguments, place=None, **options):
        return self.answers("similar", *arguments, "--in", place or self.pictures, **options)

    def index_time(self):
        return os.stat(self.index).st_mtime_ns

    def test_cosines(self):
        matrix, _, _ = self.embed(*(f"{self.pictures}/{name}" for name in self.names))
        unit = matrix.astype(float) / np.linalg.norm(matrix.astype(float), axis=1, keepdims=True)
        for query, answer in enumerate(self.similar(*(f"{self.pictures}/{n}" for n in self.names), "--top", "3")):
            cosines = unit @ unit[query]
            order = np.argsort(-cosines)[:3]
            self.assertEqual([near["file"] for near in answer["nearest"]], [self.names[i] for i in order])
            # The cosine is computed in double and told in f32.
            np.testing.assert_allclose([near["cosine"] for near in answer["nearest"]], cosines[order], atol=1e-6)

    def test_the_index_is_a_matrix_as_embed_writes_it(self):
        want = self.similar(self.images[5])
        self.assertEqual([row["file"] for row in read_table(self.index[:-3] + "tsv")], self.names)
        self.assertEqual(np.load(self.index).shape, (5, WIDTH))
        self.assertEqual(self.similar(self.images[5], place=self.index), want)
        self.embed(*(f"{self.pictures}/{name}" for name in self.names))
        for near in want[0]["nearest"]:
            near["file"] = f"{self.pictures}/{near['file']}"
        self.assertEqual(self.similar(self.images[5], place=self.at("all.npy")), want)

    def test_the_index_is_reused(self):
        first, written = self.similar(self.images[5]), self.index_time()
        self.assertEqual((self.similar(self.images[5]), self.index_time()), (first, written))
        # Numbers that only the index can have come from.
        rows = read_table(self.index[:-3] + "tsv")
        np.save(self.index, np.zeros((5, WIDTH), np.float32))
        check = 0xCBF29CE484222325
        for _ in range(WIDTH):
            check = check * 0x100000001B3 % 2**64
        self.write(self.index[:-3] + "tsv", "".join("\t".join(row) + "\n" for row in [COLUMNS] + [
            [*list(row.values())[:4], f"{check:016x}"] for row in rows]).encode())
        self.assertEqual({near["cosine"] for near in self.similar(self.images[5])[0]["nearest"]}, {None})

    def test_what_changed_is_embedded_anew(self):
        self.similar(self.images[5])
        shutil.copy(self.images[5], f"{self.pictures}/1.png")
        os.remove(f"{self.pictures}/2.png")
        answer = self.similar(self.images[5])[0]["nearest"]
        self.assertEqual((len(answer), answer[0]["file"]), (4, "1.png"))
        self.assertAlmostEqual(answer[0]["cosine"], 1, 6)
        self.assertEqual(len(np.load(self.index)), 4)
        other = self.write("other.resnet", program.tiny_model(labels=("a", "b", "c", "d")))
        wider = self.write("wider.resnet", program.tiny_model(width=16))
        for model in other, wider:
            written = self.index_time()
            self.similar(self.images[5], model=model)
            self.assertNotEqual(self.index_time(), written)
        written = self.index_time()
        self.similar(self.images[5], "--resize", "0", model=wider)
        self.assertNotEqual(self.index_time(), written)

    def test_a_broken_image_is_left_out(self):
        self.write(f"{self.pictures}/broken.png", b"no picture")
        for _ in range(2):
            out, err = self.run_it("similar", self.images[5], "--in", self.pictures, code=INPUTS)
            self.assertIn("broken.png", err)
            self.assertEqual(len(out.splitlines()), 6)
        answers = self.similar(self.images[5], self.path("absent.png"), code=INPUTS)
        self.assertEqual(["error" in answer for answer in answers], [False, True])

    def test_an_index_elsewhere(self):
        elsewhere = self.at("index.npy")
        self.similar(self.images[5], "--index", elsewhere)
        self.assertTrue(os.path.exists(elsewhere) and not os.path.exists(self.index))
        answers = self.similar(self.images[5], "--index", self.at("absent/index.npy"), code=IO)
        self.assertEqual(len(answers[0]["nearest"]), 5)  # it can be answered all the same

    def test_a_broken_index_is_made_anew(self):
        want = self.similar(self.images[5])
        with open(self.index, "rb") as file:
            matrix = file.read()
        for broken in b"", matrix[:-1], matrix[:-1] + bytes([matrix[-1] ^ 1]):
            self.write(self.index, broken)
            out, err = self.run_it("similar", "--json", self.images[5], "--in", self.pictures)
            self.assertEqual([json.loads(out)], want)
            self.assertIn("made anew", err)
            with open(self.index, "rb") as file:
                self.assertEqual(file.read(), matrix)

    def test_a_matrix_of_another_model_is_refused(self):
        self.embed(*self.images)
        other = self.write("other.resnet", program.tiny_model(labels=("a", "b", "c", "d")))
        for options in {"model": other}, {"model": self.headless}:
            _, err = self.run_it("similar", self.images[0], "--in", self.at("all.npy"), code=MODEL, **options)
            self.assertIn("cannot be compared", err)
        self.run_it("similar", self.images[0], "--in", self.at("all.npy"), "--resize", "0", code=MODEL)

    def test_bad_matrices(self):
        self.embed(*self.images)
        with open(self.at("all.npy"), "rb") as file:
            good = file.read()
        with open(self.at("all.tsv"), "rb") as file:
            table = file.read()
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': (6, {WIDTH})}}"

        def matrix(head):
            return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + good[128:]

        def check(name, matrix_bytes, table_bytes=table, code=IO):
            with self.subTest(name):
                self.write(self.at("bad.npy"), matrix_bytes)
                self.write(self.at("bad.tsv"), table_bytes)
                out, err = self.run_it("similar", self.images[0], "--in", self.at("bad.npy"), code=code)
                self.assertEqual((out == "", len(err.splitlines())), (code != OK, int(code != OK)), err)

        check("good", matrix(text), code=OK)
        check("version 2", b"\x93NUMPY\2\0" + struct.pack("<I", len(text)) + text.encode() + good[128:], code=OK)
        for size in range(0, 140, 7):
            check(f"first {size} bytes", good[:size])
        for name, old, new in (("f8", "<f4", "<f8"), ("big-endian", "<f4", ">f4"), ("Fortran order", "False", "True"),
                               ("one dimension", f"(6, {WIDTH})", f"({6 * WIDTH},)"), ("three", "(6,", "(6, 1,"),
                               ("other count", "(6,", "(7,"), ("many", "(6,", "(4294967296,"), ("more", "(6,", "(9" + "9" * 30 + ","),
                               ("negative", "(6,", "(-6,"), ("none", "(6,", "(0,"), ("no shape", "shape", "shale"),
                               ("wrapping", f"(6, {WIDTH})", "(9223372036854775809, 96)"), ("no end", ")}", ""),
                               ("no features", f"(6, {WIDTH})", f"({6 * WIDTH}, 0)")):
            check(name, matrix(text.replace(old, new)))
        check("long head", matrix(text + " " * 60000))
        check("longer file", good + b"\0")
        lines = table.splitlines(keepends=True)
        check("no table's head", good, b"".join(lines[1:]))
        check("short table", good, b"".join(lines[:-1]))
        check("long table", good, table + lines[-1])
        check("other order", good, b"".join(lines[:2] + lines[:1:-1]))
        for name, old, new in (("long model", b"/f32", b"/f32" * 99), ("no model", b"/34/", b"\t\t"), ("NUL", b"/34/", b"\0"),
                               ("more columns", b"\n", b"\t\n"), ("long line", b"\n", b"x" * 9000 + b"\n")):
            check(name, good, lines[0] + b"".join(lines[1:]).replace(old, new))
        os.remove(self.at("bad.tsv"))
        self.run_it("similar", self.images[0], "--in", self.at("bad.npy"), code=IO)
        for odd in self.at("absent.npy"), "/dev/zero":
            self.run_it("similar", self.images[0], "--in", odd, code=IO)

    def test_sheet(self):
        sheet, broken = self.at("sheet.png"), self.write("broken.png", b"no picture")
        self.similar(self.images[0], broken, self.images[1], "--top", "2", "-o", sheet, code=INPUTS)
        pixels = read_png(sheet)
        self.assertEqual(pixels.shape, (2 * 168 + 8, 3 * 168 + 8 + 16, 3))  # two rows of three; the broken one has none
        self.assertTrue((pixels[:8] == 255).all() and (pixels[:, 168:192] == 255).all())
        for top in 8, 176:
            query, nearest = pixels[top:top + 160, 8:168], pixels[top:top + 160, 192:352]
            self.assertTrue((query == nearest).all())  # the image itself
            self.assertGreater(query.std(), 5)
        self.run_it("similar", self.images[0], "--in", self.pictures, "-o", self.at("absent/sheet.png"), code=IO)

    def test_an_empty_folder(self):
        os.mkdir(self.at("empty"))
        _, err = self.run_it("similar", self.images[0], "--in", self.at("empty"), code=INPUTS)
        self.assertIn("no image to compare with", err)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("RESNET_PROGRAM must name the program")
    unittest.main()
