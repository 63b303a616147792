#!/usr/bin/env python3
"""Drive the program `resnet` from outside: usage, exit codes, bad inputs, JSON.

The environment variable RESNET_PROGRAM names the program. A model of one block and a few PNG files are made here.
"""
import json
import math
import os
import pty
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

PROGRAM = os.environ.get("RESNET_PROGRAM")
COMMANDS = ("classify", "inspect", "bench", "eval", "quantize", "diff", "teach")
LABELS = ("ant", 'a "quoted" \\ bee', "Käfer", "dragonfly")
PEAKS = ("peak_f32_gops", "peak_bf16_gops", "peak_int8_gops")
OK, INPUTS, USAGE, MODEL, IO = range(5)


def crc32c(data):
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def seal(model):
    """The same bytes with their checksums made right."""
    model = bytearray(model)
    struct.pack_into("<I", model, 24, crc32c(model[256:]))
    struct.pack_into("<I", model, 12, 0)
    struct.pack_into("<I", model, 12, crc32c(model[:256]))
    return bytes(model)


def tiny_model(classes=len(LABELS), labels=LABELS, width=8):
    """models/FORMAT.md in a few lines: a stem, one basic block, a classifier, for 32x32 pixels."""
    rng = random.Random(1)

    def tensor(values):
        data = struct.pack(f"<{len(values)}f", *values)
        return data + bytes(-len(data) % 64)

    def convolution(out, fan_in):
        weight = [rng.gauss(0, math.sqrt(2 / fan_in)) for _ in range(out * fan_in)]
        return b"".join(map(tensor, (weight, [1.0] * out, [0.0] * out, [0.0] * out, [1.0] * out)))

    payload = "".join(label + "\n" for label in labels).encode()
    labels_size = len(payload)
    payload += bytes(-(256 + len(payload)) % 64)
    payload += convolution(width, 3 * 49) + 2 * convolution(width, width * 9)
    payload += tensor([rng.gauss(0, 1) for _ in range(classes * width)]) + tensor([0.0] * classes)
    header = struct.pack("<8sIIQII8B", b"\x8bRNT\r\n\x1a\n", 1, 0, 256 + len(payload), 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)
    header += struct.pack("<4I", 1, 0, 0, 0) + struct.pack("<8I", width, 1, 64, 0, 3, 32, 32, classes)
    header += struct.pack("<f3I", 1e-5, 34, labels_size, 0) + bytes(24)
    for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)):
        header += struct.pack("<16f", *values, *[0] * 13)
    return seal(header + payload)


def png(seed, width=40, height=36):
    rng = random.Random(seed)
    colour = [rng.randrange(256) for _ in range(3)]

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(
        b"\0" + bytes((c + rng.randrange(64)) % 256 for _ in range(width) for c in colour) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def resnet(*arguments, **options):
    """Run the program: (exit code, stdout, stderr as text)."""
    options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
    if options["stdin"] is None:
        del options["stdin"]
    options.setdefault("stdout", subprocess.PIPE)
    done = subprocess.run([PROGRAM, *arguments], stderr=subprocess.PIPE, timeout=30, **options)
    return done.returncode, done.stdout, done.stderr.decode()


def no_space_in_files():
    """In the program about to start: a write to a file fails, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


class ProgramTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model_bytes = tiny_model()
        cls.model = cls.write("tiny.resnet", cls.model_bytes)
        cls.images = [cls.write(f"{i}.png", png(i)) for i in range(6)]

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def write(cls, name, data):
        path = os.path.join(os.fsencode(cls.folder.name), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return os.fsdecode(path)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def classify(self, *arguments, **options):
        return resnet("classify", "--model", self.model, *arguments, **options)

    def answers(self, *arguments, code=OK, **options):
        got, out, err = self.classify("--json", *arguments, **options)
        self.assertEqual(got, code, err)
        return [json.loads(line) for line in out.decode().splitlines()]

    def terminal(self):
        try:
            return pty.openpty()
        except OSError as error:  # a bare chroot or container may have none
            self.skipTest(str(error))

    def seen_on_a_terminal(self, command, **options):
        """What a command that ends well writes to its standard error."""
        master, slave = self.terminal()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=slave, **options) as running:
            os.close(slave)
            seen = b""
            try:
                while data := os.read(master, 4096):
                    seen += data
            except OSError:  # what Linux gives at the end of a terminal
                pass
            self.assertEqual(running.wait(timeout=30), OK)
        os.close(master)
        return seen


class Usage(ProgramTest):
    def test_help(self):
        for command in COMMANDS:
            code, out, err = resnet(command, "--help")
            self.assertEqual((code, err), (OK, ""))
            self.assertTrue(out.startswith(b"usage: resnet " + command.encode()))
            self.assertTrue(all(len(line.decode()) <= 100 for line in out.splitlines()), out.decode())
            self.assertEqual(resnet("help", command)[:2], (OK, out))
            self.assertIn(command.encode(), resnet("--help")[1])
        self.assertEqual(resnet("help"), resnet("--help"))

    def test_version(self):
        code, out, _ = resnet("--version")
        self.assertEqual(code, OK)
        self.assertRegex(out, rb"^resnet \d+\.\d+\.\d+\nJPEGs are decoded by (stb_image|libjpeg-turbo)\n$")

    def test_mistakes(self):
        image = self.images[0]
        for arguments in ([], ["clasify", image], ["help", "nothing"], ["classify"], ["classify", "--frob", image],
                          ["classify", "-x", image], ["classify", image, "--top"], ["classify", "--json=yes", image],
                          ["classify", "--top", "0", image], ["classify", "--top", "5x", image],
                          ["classify", "--top=", image], ["classify", "--threads", "-1", image],
                          ["classify", "--threads", "99999999999999999999999", image],
                          ["classify", "--threads", " 1", image], ["classify", "--resize", "16385", image],
                          ["classify", "--isa", "z80", image], ["classify", "--logits", image],
                          ["classify", "-", "-"], ["classify", "--files-from", "-", "-"], ["inspect", "a", "b"],
                          ["inspect", "--top", "3"], ["bench", "a"], ["bench", "--seconds", "nan"],
                          ["bench", "--seconds", "1e99"], ["bench", "--arch", "resnet50", "--model", "m"],
                          ["bench", "--arch", "resnet51"], ["bench", "--precision", "f64"], ["bench", "--batch", "0"],
                          ["bench", "--size", "0"], ["bench", "--size", "16385"], ["classify", "--precision", "", image],
                          ["eval", "--folders", "a", "--precision", "F32"], ["bench", "--trace"],
                          ["eval"], ["eval", "--folders", "a", "--labels-tsv", "b"], ["eval", "--folders"]):
            with self.subTest(arguments):
                code, out, err = resnet(*arguments)
                self.assertEqual((code, out), (USAGE, b""), err)
                self.assertTrue(err.startswith(("resnet: ", "usage: ")), err)

    def test_option_forms(self):
        image = self.images[0]
        self.assertEqual(len(self.answers("--top=2", image)[0]["top"]), 2)
        self.assertEqual(len(self.answers(image, "--top", "2")[0]["top"]), 2)
        self.assertEqual(self.answers("--", image)[0]["file"], image)
        code, _, err = self.classify("--", "--top")
        self.assertEqual(code, INPUTS)
        self.assertIn("--top", err)


class Classify(ProgramTest):
    def test_json(self):
        code, out, err = self.classify("--json", "--logits", self.images[0])
        self.assertEqual((code, err), (OK, ""))
        answer = json.loads(out)
        self.assertEqual(answer["file"], self.images[0])
        self.assertEqual(len(answer["logits"]), len(LABELS))
        self.assertEqual([entry["label"] for entry in answer["top"]],
                         [LABELS[entry["index"]] for entry in answer["top"]])
        scores = [entry["score"] for entry in answer["top"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        powers = [math.exp(logit - max(answer["logits"])) for logit in answer["logits"]]
        for entry in answer["top"]:
            self.assertAlmostEqual(entry["score"], powers[entry["index"]] / sum(powers), 5)
        single = struct.unpack("<4f", struct.pack("<4f", *answer["logits"]))
        self.assertEqual([float(f"{x:.9g}") for x in single], answer["logits"])
        self.assertNotIn("logits", self.answers(self.images[0])[0])

    def test_order_and_batches(self):
        together = self.answers("--logits", *self.images)
        self.assertEqual([answer["file"] for answer in together], self.images)
        for image, answer in zip(self.images, together):
            self.assertEqual(self.answers("--logits", "--threads", "1", image), [answer])

    def test_resize(self):
        self.assertNotEqual(self.answers("--logits", self.images[0]),
                            self.answers("--logits", "--resize", "0", self.images[0]))
        self.assertEqual(self.answers("--logits", self.images[0]),
                         self.answers("--logits", "--resize=34", self.images[0]))

    def test_for_people(self):
        code, out, err = self.classify("--top", "3", *self.images[:2])
        self.assertEqual((code, err), (OK, ""))
        lines = out.decode().splitlines()
        self.assertEqual([lines[0], lines[4]], self.images[:2])
        self.assertRegex(lines[1], r"^ +\d+\.\d\d %  .* (ant|a .*|Käfer|dragonfly)$")
        self.assertEqual(sum("This model knows only: ant," in line for line in lines), 1)
        self.assertTrue(all(len(line) <= 80 for line in lines[1:4] + lines[5:]), out.decode())

    def test_isa(self):
        answer = self.answers("--isa", "scalar", self.images[0])
        self.assertEqual(answer, self.answers("--isa=scalar", self.images[0]))
        codes = {self.classify("--isa", isa, self.images[0])[0] for isa in ("neon", "avx2")}
        self.assertIn(MODEL, codes)  # no machine has both

    def test_stdin(self):
        with open(self.images[0], "rb") as file:
            data = file.read()
        want = {**self.answers("--logits", self.images[0])[0], "file": "-"}
        self.assertEqual(self.answers("--logits", "-", input=data), [want])
        for bad in (b"", b"no image", data[:60]):
            self.assertIn("error", self.answers("-", input=bad, code=INPUTS)[0])
        with open("/dev/zero", "rb") as zeros:
            self.assertIn("64 MiB", self.answers("-", stdin=zeros, code=INPUTS)[0]["error"])

    def test_files_from(self):
        listing = ("\n".join(self.images[1:]) + "\n\n" + self.images[0]).encode()
        self.assertEqual([a["file"] for a in self.answers("--files-from", "-", input=listing)],
                         self.images[1:] + self.images[:1])
        path = self.write("list.txt", listing)
        self.assertEqual(len(self.answers("--files-from", path, self.images[0])), 7)
        self.assertEqual(self.answers("--files-from", "/dev/null"), [])
        for bad in ("/dev/zero", self.folder.name, self.path("absent"), self.write("long", b"x" * 10000)):
            code, _, err = self.classify("--files-from", bad)
            self.assertEqual(code, IO, err)
        code, _, err = self.classify("--files-from", self.write("print0", b"a.png\0b.png\0"))
        self.assertEqual(code, IO)
        self.assertIn("NUL", err)

    def test_files_from_a_program_that_waits(self):
        with subprocess.Popen([PROGRAM, "classify", "--model", self.model, "--json", "--files-from", "-"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            for image in self.images[:3]:
                program.stdin.write(image.encode() + b"\n")
                program.stdin.flush()
                self.assertEqual(json.loads(program.stdout.readline())["file"], image)
            program.stdin.close()
            self.assertEqual(program.wait(timeout=30), OK)

    def test_odd_file_names(self):
        names = ["a b.png", 'q"uo\\te.png', "new\nline\ttab.png", "ü€.png", "esc\x1b[31m\x7f.png", "c1\u009b31m.png",
                 "-dash.png", os.fsdecode(b"bad\xff\xc0\x80\xed\xa0\x80")]
        for name in names:
            path = self.write(name, png(7))
            clean = os.fsencode(path).decode(errors="replace")
            answer = self.answers(path)[0]
            self.assertEqual(re.sub("\ufffd+", "\ufffd", answer["file"]), re.sub("\ufffd+", "\ufffd", clean))
            for arguments in ([path], ["--json", path], [path + "absent"], ["--json", path + "absent"]):
                _, out, err = self.classify(*arguments)
                text = out.decode() + err  # valid UTF-8
                control = [c for c in text if ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160]
                self.assertEqual(control, [], repr(text))

    def test_colour_only_on_a_terminal(self):
        for no_color, want in ((None, True), ("", True), ("1", False)):
            environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
            if no_color is not None:
                environment["NO_COLOR"] = no_color
            master, slave = self.terminal()
            self.classify(self.images[0], stdout=slave, env=environment)
            os.close(slave)
            self.assertEqual(b"\x1b[" in os.read(master, 4096), want)
            os.close(master)
        self.assertNotIn(b"\x1b", self.classify(self.images[0])[1])

    def test_progress_only_on_a_terminal(self):
        for no_color, want in (("", True), ("1", False)):
            seen = self.seen_on_a_terminal([PROGRAM, "classify", "--json", "--model", self.model, *self.images * 50],
                                           env={**os.environ, "NO_COLOR": no_color})
            self.assertIn(b"of 300, ", seen)
            self.assertEqual(b"\x1b[32m" in seen, want)
            self.assertTrue(seen.endswith(b"\r\x1b[K"), seen[-20:])
        self.assertEqual(self.classify("--json", *self.images * 50)[2], "")


class BadImages(ProgramTest):
    def test_each_is_reported_and_the_rest_is_done(self):
        good = self.images[0]
        with open(good, "rb") as file:
            data = file.read()
        os.mkfifo(self.path("fifo"))
        bad = [self.path("absent"), self.path("fifo"), self.folder.name, "/dev/zero", "/dev/null", "",
               self.write("empty", b""), self.write("short", data[:-30]), self.write("text", b"hello\n" * 50),
               self.write("wide", data[:16] + struct.pack(">II", 65535, 65535) + data[24:]), self.path("x" * 5000)]
        files = [f for b in bad for f in (b, good)]
        code, out, err = self.classify("--json", *files)
        self.assertEqual(code, INPUTS)
        answers = [json.loads(line) for line in out.decode().splitlines()]
        self.assertEqual([answer["file"] for answer in answers], files)
        for answer in answers:
            self.assertEqual("top" in answer, answer["file"] == good)
            self.assertEqual("error" in answer, answer["file"] != good)
        lines = err.splitlines()
        self.assertEqual(len(lines), len(bad))
        for path, line in zip(bad, lines):
            self.assertTrue(line.startswith(f"resnet: {path}: "), line)

    def test_only_bad(self):
        code, out, err = self.classify(self.path("absent"))
        self.assertEqual((code, out), (INPUTS, b""))
        self.assertEqual(len(err.splitlines()), 1)


class BadModels(ProgramTest):
    def check(self, path, code):
        for arguments in (["classify", "--model", path, self.images[0]], ["inspect", path]):
            got, out, err = resnet(*arguments)
            self.assertEqual((got, out), (code, b""), err)
            self.assertEqual(len(err.splitlines()), 1)
            self.assertTrue(err.startswith(f"resnet: {path}: "), err)

    def test_files_that_are_none(self):
        os.mkfifo(self.path("fifo"))
        for path in (self.path("absent"), self.path("fifo"), self.folder.name, "/dev/zero", ""):
            self.check(path, IO)

    def test_broken(self):
        data = self.model_bytes
        big_endian = bytearray(data)
        big_endian[8:12] = struct.pack(">I", 1)
        for name, broken in (("empty", b""), ("magic", data[:8]), ("header", data[:256]), ("cut", data[:-1]),
                             ("longer", data + b"\0"), ("text", b"x" * 1000), ("image", png(1)),
                             ("version", seal(data[:8] + b"\2" + data[9:])), ("endian", seal(big_endian)),
                             ("classes", seal(data[:84] + b"\xff\xff\xff\xff" + data[88:])),
                             ("nan", seal(data[:-64] + struct.pack("<f", math.nan) + data[-60:]))):
            self.check(self.write(name, broken), MODEL)

    def test_reserved_kinds(self):
        for offset in (34, 35, 36, 37, 38):
            self.check(self.write("reserved", seal(self.model_bytes[:offset] + b"\t" + self.model_bytes[offset + 1:])),
                       MODEL)

    def test_flipped_bits(self):
        rng = random.Random(2)
        for _ in range(24):
            flipped = bytearray(self.model_bytes)
            flipped[rng.choice((rng.randrange(256), rng.randrange(len(flipped))))] ^= 1 << rng.randrange(8)
            self.check(self.write("flipped", flipped), MODEL)


class Info(ProgramTest):
    def test_json(self):
        code, out, _ = resnet("inspect", "--json", "--layers", self.model)
        info = json.loads(out)
        self.assertEqual(code, OK)
        self.assertEqual(info["labels"], list(LABELS))
        self.assertEqual((info["classes"], info["height"], info["blocks"]), (4, 32, [1]))
        self.assertEqual(info["parameters"], 3 * 49 * 8 + 2 * 9 * 64 + 3 * 16 + 4 * 8 + 4)
        self.assertEqual(sum(layer["parameters"] for layer in info["layers"]), info["parameters"])
        self.assertEqual(sum(layer["macs"] for layer in info["layers"]), info["macs"])
        self.assertAlmostEqual(info["preprocess"]["mean"][0], 0.485)
        self.assertEqual(info["preprocess"]["resize"], 34)

    def test_for_people(self):
        code, out, _ = resnet("inspect", "--layers", self.model)
        self.assertEqual(code, OK)
        self.assertIn("last class          dragonfly", out.decode())
        self.assertIn(b"layer1.0.conv2", out)

    def test_model_without_labels(self):
        model = self.write("nameless.resnet", tiny_model(labels=()))
        self.assertEqual(json.loads(resnet("inspect", "--json", model)[1])["labels"], [])
        code, out, _ = resnet("classify", "--model", model, self.images[0])
        self.assertEqual(code, OK)
        self.assertIn(b"class 3", out)
        answer = json.loads(resnet("classify", "--json", "--model", model, self.images[0])[1])
        self.assertIsNone(answer["top"][0]["label"])


@unittest.skipIf("thread" in os.environ.get("RESNET_SANITIZE", ""), "reading memory at speed takes minutes there")
class Bench(ProgramTest):
    def bench(self, *arguments):
        code, out, err = resnet("bench", "--model", self.model, "--seconds", "0.01", *arguments)
        self.assertEqual((code, err), (OK, ""))
        return out

    def test_json(self):
        figures = json.loads(self.bench("--json", "--layers", "--threads", "1", "--batch", "2"))
        self.assertEqual((figures["threads"], figures["batch"], figures["precision"]), (1, 2, "f32"))
        self.assertGreaterEqual(figures["runs"], 5)
        self.assertLessEqual(figures["min_ms"], figures["median_ms"])
        self.assertAlmostEqual(figures["images_per_second"], 2e3 / figures["median_ms"], delta=1)
        for name in ("load_ms", "model_mb", "session_mb", "peak_rss_mb", "gops", "share_of_peak", "limit_ms",
                     "share_of_limit", *PEAKS, "read_l1_gb_s", "read_memory_gb_s"):
            self.assertGreater(figures[name], 0, name)
        info = json.loads(resnet("inspect", "--json", "--layers", self.model)[1])
        self.assertEqual([layer["name"] for layer in figures["layers"]], [layer["name"] for layer in info["layers"]])
        self.assertTrue(all(layer["ms"] >= 0 for layer in figures["layers"]))
        self.assertAlmostEqual(figures["gops"] * figures["median_ms"] * 1e6 / (2 * info["macs"] * 2), 1, 5)
        self.assertAlmostEqual(figures["gops"] / figures["peak_f32_gops"], figures["share_of_peak"], 5)
        self.assertEqual(json.loads(self.bench("--json", "--seconds", "0"))["runs"], 5)

    def test_limits(self):
        figures = json.loads(self.bench("--json", "--layers", "--threads", "1"))
        layers = {layer["name"]: layer for layer in figures["layers"]}
        self.assertAlmostEqual(sum(layer["limit_ms"] for layer in layers.values()), figures["limit_ms"], 9)
        for layer in layers.values():
            self.assertAlmostEqual(layer["share_of_limit"] * layer["ms"], layer["limit_ms"], 9)
        self.assertEqual({layers["maxpool"]["limited_by"], layers["avgpool"]["limited_by"]}, {"bytes"})
        conv = layers["layer1.0.conv1"]  # 8 channels of 8 x 8, twice, and 3 x 3 x 8 x 8 weights
        fastest = max(figures[name] for name in figures if name.startswith("read_") and figures[name])
        self.assertGreaterEqual(conv["limit_ms"], 2e-6 * 64 * 576 / figures["peak_f32_gops"] * 0.999)
        self.assertGreaterEqual(conv["limit_ms"], 4e-6 * (2 * 512 + 576) / fastest * 0.999)

    def test_size(self):
        figures = json.loads(self.bench("--json", "--size", "64"))
        small = json.loads(self.bench("--json"))
        self.assertEqual((figures["height"], figures["width"], small["height"]), (64, 64, 32))
        work = [f["gops"] * f["median_ms"] for f in (figures, small)]
        self.assertGreater(work[0], 3.5 * work[1])  # four times but for the classifier
        self.assertGreater(figures["session_mb"], small["session_mb"])

    def test_precision(self):
        for precision in ("auto", "f32"):
            self.assertEqual(json.loads(self.bench("--json", "--precision", precision))["precision"], "f32")
        code, out, _ = resnet("bench", "--arch", "resnet18", "--size", "32", "--seconds", "0", "--json", "--precision",
                              "int8")
        self.assertEqual((code, json.loads(out)["precision"]), (OK, "int8"))
        self.assertEqual(self.answers("--precision", "f32", self.images[0]), self.answers(self.images[0]))

    def test_int8_needs_a_quantised_file(self):
        for arguments in (["classify", self.images[0]], ["bench"], ["eval", "--folders", self.folder.name]):
            code, out, err = resnet(*arguments, "--model", self.model, "--precision", "int8")
            self.assertEqual((code, out), (MODEL, b""), err)
            self.assertIn("resnet quantize", err)

    def test_trace(self):
        path = self.path("trace.json")
        figures = json.loads(self.bench("--json", "--layers", "--trace", path))
        with open(path, encoding="utf-8") as file:
            whole, *layers = json.load(file)["traceEvents"]
        self.assertEqual([event["name"] for event in layers], [layer["name"] for layer in figures["layers"]])
        end = 0
        for event in layers:
            self.assertEqual((event["ph"], event["pid"], event["tid"]), ("X", whole["pid"], whole["tid"]))
            self.assertAlmostEqual(event["ts"], end, 3)
            end = event["ts"] + event["dur"]
        self.assertTrue(0 < end <= whole["dur"] * 1.001, (end, whole))
        self.assertTrue(figures["min_ms"] * 0.999 <= whole["dur"] / 1e3)

    def test_trace_that_cannot_be_written(self):
        os.mkdir(self.path("full"))
        for path in (self.path("absent/trace"), self.path("full"), "/dev/full", "/dev/null", ""):
            code, _, err = resnet("bench", "--model", self.model, "--seconds", "0", "--trace", path)
            self.assertEqual(code, IO)
            self.assertEqual(len(err.splitlines()), 1, err)
        self.assertEqual(os.listdir(self.path("full")), [])
        path = self.write("kept", b"older")
        code, _, err = resnet("bench", "--model", self.model, "--seconds", "0", "--trace", path,
                              preexec_fn=no_space_in_files)
        self.assertEqual((code, len(err.splitlines())), (IO, 1), err)
        self.assertEqual(sorted(name for name in os.listdir(self.folder.name) if name.startswith("kept")), ["kept"])
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"older")

    def test_compare(self):
        before = self.write("before.json", self.bench("--json", "--layers"))
        with open(before, encoding="utf-8") as file:
            old = json.load(file)
        new = json.loads(self.bench("--json", "--layers", "--compare", before))
        self.assertEqual(new["before_median_ms"], old["median_ms"])
        self.assertAlmostEqual(new["median_ratio"], new["median_ms"] / old["median_ms"], 5)
        self.assertAlmostEqual(new["images_ratio"], new["images_per_second"] / old["images_per_second"], 5)
        for layer, layer_before in zip(new["layers"], old["layers"]):
            self.assertEqual(layer["before_ms"], layer_before["ms"])
            self.assertAlmostEqual(layer["ratio"] * layer_before["ms"], layer["ms"], 5)
        out = self.bench("--layers", "--compare", before).decode()
        self.assertIn("median ratio", out)
        self.assertRegex(out, r"(?m)^layer1\.0\.conv1 .* \d+\.\d\d$")

    def test_compare_with_another_network(self):
        before = self.write("other.json", json.dumps(
            {"median_ms": 2, "images_per_second": 500, "arch": [1], "threads": "two", "new": {"a": [None, {}]},
             "layers": [{"name": "conv1", "ms": 0.5}, {"name": "x" * 500, "ms": None}, {}]}, indent=1).encode())
        layers = json.loads(self.bench("--json", "--layers", "--compare", before))["layers"]
        self.assertEqual([layer["before_ms"] for layer in layers], [0.5] + [None] * (len(layers) - 1))

    def test_compare_with_what_is_none(self):
        good = b'{"median_ms": 2, "images_per_second": 500}'
        self.bench("--compare", self.write("good.json", good))
        for bad in (b"", b"{}", b"[]", b"hello", good[:-1], good + b"x", good + good, good.replace(b"2", b"0"),
                    good.replace(b"2", b"-1"), good.replace(b"2", b"1e999"), good.replace(b"2", b"nan"),
                    good.replace(b"2", b'"2"'), good.replace(b"2", b"2,"), good.replace(b"2", b"9" * 1000),
                    good.replace(b":", b""), b"[" * 100000, b'{"":' * 100000, b'{"a": "' + b"\\" * 999,
                    good.replace(b"2", b"2\0"), b'{"a\nb": 1}', self.model_bytes, b" " * (5 << 20)):
            code, out, err = resnet("bench", "--compare", self.write("bad.json", bad))
            self.assertEqual((code, out), (USAGE, b""), bad[:60])
            self.assertEqual(len(err.splitlines()), 1, err)
            self.assertIn("bad.json: expected", err)
        for path in (self.path("absent"), self.folder.name):
            code, out, err = resnet("bench", "--compare", path)
            self.assertEqual((code, out, len(err.splitlines())), (IO, b"", 1), err)
        self.assertEqual(resnet("bench", "--compare", "/dev/zero")[0], USAGE)

    def test_isa_is_the_one_that_was_asked_for(self):
        for isa in ("scalar", "reference"):
            self.assertEqual(json.loads(self.bench("--json", "--isa", isa))["isa"], isa)

    def test_refuses_an_isa_that_this_cpu_lacks(self):
        said = [resnet("bench", "--model", self.model, "--seconds", "0", "--isa", isa) for isa in ("neon", "avx2")]
        self.assertTrue(any(code == MODEL and out == b"" and "this CPU has no" in err for code, out, err in said), said)

    def test_for_people(self):
        out = self.bench("--layers").decode()
        self.assertIn("median ms", out)
        self.assertIn("layer1.0.conv1", out)


class Eval(ProgramTest):
    def truth(self):
        return [answer["top"][0]["index"] for answer in self.answers(*self.images)]

    def eval(self, *arguments, code=OK):
        got, out, err = resnet("eval", "--model", self.model, "--json", *arguments)
        self.assertEqual(got, code, err)
        return json.loads(out) if out else None, err

    def table(self, classes, header=True):
        lines = ["file\tclass\tname"] * header + [f"{i}.png\t{c}\tname" for i, c in enumerate(classes)]
        return self.write("labels.tsv", "\n".join(lines).encode())

    def test_table(self):
        truth = self.truth()
        for header in (True, False):
            result, err = self.eval("--labels-tsv", self.table(truth, header), "--batch", "4")
            self.assertEqual((err, result["images"], result["failed"]), ("", 6, 0))
            self.assertEqual((result["top1"], result["top1_correct"], result["top5_correct"]), (1, 6, 6))
            self.assertEqual(sum(result["confusion_matrix"][i][i] for i in range(4)), 6)
            self.assertEqual(result["confusions"], [])
        wrong = [(c + 1) % 4 for c in truth[:2]] + truth[2:]
        result, _ = self.eval("--labels-tsv", self.table(wrong))
        self.assertEqual(result["top1_correct"], 4)
        self.assertEqual(sum(c["count"] for c in result["confusions"]), 2)
        low, high = result["top1_interval"]  # Wilson's, from a table for 4 of 6
        self.assertAlmostEqual(low, 0.30, 2)
        self.assertAlmostEqual(high, 0.90, 2)

    def test_broken_image_in_the_middle(self):
        truth = self.truth()
        self.write("broken.png", b"\x89PNG\r\n\x1a\n")
        rows = [f"{image}\t{c}" for image, c in zip(self.images, truth)]
        table = self.write("broken.tsv", "\n".join(rows[:3] + ["broken.png\t0"] + rows[3:]).encode())
        for batch in ("1", "16"):
            result, err = self.eval("--labels-tsv", table, "--batch", batch, code=INPUTS)
            self.assertEqual((result["images"], result["failed"], result["top1_correct"]), (6, 1, 6))
            self.assertEqual(len(err.splitlines()), 1)
            self.assertIn("broken.png: ", err)

    def test_unknown_classes_are_left_out(self):
        result, err = self.eval("--labels-tsv", self.table([-1, *self.truth()[1:5], -1]))
        self.assertEqual((result["images"], result["top1_correct"]), (4, 4))
        self.assertIn("2 images", err)

    def test_bad_tables(self):
        for row in (b"a", b"a\tcat", b"a\t4", b"a\t-2", b"a\t-", b"a\t99999999999999999999", b"a\t1x", b"a\0b\t1"):
            result, err = self.eval("--labels-tsv", self.write("bad.tsv", row + b"\n"), code=IO)
            self.assertIsNone(result)
            self.assertEqual(len(err.splitlines()), 1, err)
        for path in (self.path("absent"), self.folder.name, "/dev/zero"):
            self.eval("--labels-tsv", path, code=IO)

    def folders(self, root, names):
        for i, c in enumerate(self.truth()):
            with open(self.images[i], "rb") as file:
                self.write(f"{root}/{names[c]}/{i}.png", file.read())
        for name in names:
            self.write(f"{root}/{name}/.hidden", b"")
        return self.path(root)

    def test_folders_by_label(self):
        result, err = self.eval("--folders", self.folders("named", LABELS))
        self.assertEqual(result["top1"], 1)
        self.assertIn("labels", err)

    def test_folders_by_position(self):
        result, err = self.eval("--folders", self.folders("numbered", "abcd"))
        self.assertEqual(result["top1"], 1)
        self.assertIn("order", err)
        self.write("many/e/x.png", b"")
        self.eval("--folders", self.folders("many", "abcd"), code=IO)
        self.eval("--folders", self.path("absent"), code=IO)

    def test_many_classes(self):
        model = self.write("many.resnet", tiny_model(classes=30, labels=()))
        code, out, _ = resnet("eval", "--model", model, "--json", "--labels-tsv", self.table([29] * 6))
        self.assertEqual(code, OK)
        self.assertNotIn("confusion_matrix", json.loads(out))
        code, out, _ = resnet("eval", "--model", model, "--labels-tsv", self.table([29] * 6))
        self.assertIn(b"taken for class", out)

    def test_for_people(self):
        code, out, _ = resnet("eval", "--model", self.model, "--labels-tsv", self.table(self.truth()))
        self.assertEqual(code, OK)
        self.assertIn("top1 correct        6", out.decode())
        self.assertIn("dragonfly", out.decode())


class Output(ProgramTest):
    def test_full(self):
        for arguments in (["classify", "--model", self.model, self.images[0]], ["inspect", self.model], ["--help"],
                          ["bench", "--model", self.model, "--seconds", "0"]):
            with open("/dev/full", "wb") as full:
                code, _, err = resnet(*arguments, stdout=full)
            self.assertEqual(code, IO)
            self.assertEqual(len(err.splitlines()), 1, err)
            self.assertIn("No space left", err)

    def read_one_line(self, **options):
        command = [PROGRAM, "classify", "--json", "--model", self.model, *self.images * 50]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as program:
            json.loads(program.stdout.readline())
            program.stdout.close()
            err = program.stderr.read()
            return program.wait(timeout=30), err

    def test_reader_that_goes(self):
        self.assertEqual(self.read_one_line(), (-signal.SIGPIPE, b""))
        ignored = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        try:
            self.assertEqual(self.read_one_line(restore_signals=False), (IO, b""))
        finally:
            signal.signal(signal.SIGPIPE, ignored)


class Quantize(ProgramTest):
    def setUp(self):
        self.pictures, self.made = self.path(self.id() + "/pictures"), self.path(self.id() + "/made")
        for seed in range(6):
            self.write(f"{self.pictures}/{seed}.png", png(seed))

    def quantize(self, *arguments, **options):
        return resnet("quantize", "--model", self.model, "--threads", "1", *arguments, **options)

    def test_makes_smaller_files_that_can_be_used(self):
        for precision, *source in ("int8", "--calibrate", self.pictures), ("bf16",):
            made = self.made + precision
            code, out, err = self.quantize("--precision", precision, *source, "-o", made, "--json")
            self.assertEqual((code, err), (OK, ""))
            report = json.loads(out)
            self.assertEqual(report["bytes"], os.path.getsize(made))
            self.assertEqual(report["f32_bytes"], os.path.getsize(self.model))
            info = json.loads(resnet("inspect", "--json", made)[1])
            self.assertEqual((info["precision"], info["labels"]), (precision, list(LABELS)))
            self.assertEqual(resnet("classify", "--model", made, self.images[0])[0], OK)
            self.assertEqual(resnet("classify", "--model", made, "--isa", "reference", self.images[0])[0], OK)

    def test_report(self):
        code, out, _ = self.quantize("--calibrate", self.pictures, "--images", "4", "-o", self.made, "--json")
        report = json.loads(out)
        self.assertEqual((code, report["images"], report["failed"]), (OK, 4, 0))
        self.assertLessEqual(report["same_class_as_f32"], 4)
        layers = {layer["name"]: layer for layer in report["layers"]}
        self.assertGreater(layers["layer1.0.conv1"]["weight_db"], 20)
        self.assertGreater(layers["fc"]["output_db"], 10)
        self.assertIsNone(layers["maxpool"]["weight_db"])
        code, out, _ = self.quantize("--calibrate", self.pictures, "-o", self.made)
        self.assertIn(b"layer1.0.conv2", out)

    def test_broken_pictures_are_left_out(self):
        self.write(self.pictures + "/broken.png", b"no picture")
        code, out, err = self.quantize("--calibrate", self.pictures, "-o", self.made, "--json")
        report = json.loads(out)
        self.assertEqual((code, report["images"], report["failed"]), (INPUTS, 6, 1))
        self.assertIn("broken.png", err)
        self.assertEqual(resnet("inspect", self.made)[0], OK)

    def test_what_cannot_be_done_leaves_no_file(self):
        empty, made = self.path(self.id() + "/empty"), self.made
        os.mkdir(empty)
        for code, *arguments in ((USAGE, "-o", made), (USAGE, "--calibrate", self.pictures),
                                 (USAGE, "--precision", "f32", "-o", made), (IO, "--calibrate", self.path("absent"), "-o", made),
                                 (INPUTS, "--calibrate", empty, "-o", made),
                                 (IO, "--calibrate", self.pictures, "-o", self.path("absent/made")),
                                 (IO, "--calibrate", self.pictures, "-o", "/dev/null")):
            got, _, err = self.quantize(*arguments)
            self.assertEqual(got, code, err)
            self.assertFalse(os.path.exists(made))

    def test_a_full_disk_leaves_the_old_file(self):
        made = self.write(self.made, b"older")
        code, _, _ = self.quantize("--calibrate", self.pictures, "-o", made, preexec_fn=no_space_in_files)
        self.assertEqual(code, IO)
        with open(made, "rb") as file:
            self.assertEqual(file.read(), b"older")
        self.assertEqual(sorted(os.listdir(self.path(self.id()))), ["made", "pictures"])

    def test_only_f32_files_can_be_quantized(self):
        made = self.made
        self.assertEqual(self.quantize("--precision", "bf16", "-o", made)[0], OK)
        code, _, err = resnet("quantize", "--model", made, "--calibrate", self.pictures, "-o", made + "2")
        self.assertEqual(code, MODEL)
        self.assertIn("only a file in f32", err)


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("RESNET_PROGRAM must name the program")
    unittest.main()
