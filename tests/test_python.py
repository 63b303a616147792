#!/usr/bin/env python3
"""tools/resnet.py against the program: the same answers, in one process and in pools of them.

Run by ctest with RESNET_PROGRAM and RESNET_BUILD (the build folder) in the environment.
"""
import json
import multiprocessing
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import zlib

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)
if os.environ.get("RESNET_SANITIZE"):
    print("skipped: Python was built without this sanitizer")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ["RESNET_PROGRAM"]
os.environ["RESNET_LIBRARY"] = os.environ["RESNET_BUILD"] + "/libresnet.so"
sys.path.insert(0, str(ROOT / "tools"))
import resnet  # noqa: E402 (it looks for the library when it is imported)

MODEL = ROOT / "models/default.resnet"
SAMPLES = sorted(str(path) for path in (ROOT / "models/samples").glob("*.png"))
WANT = ["church", "French horn", "golf ball", "parachute"]


def png(pixels):
    height, width, _ = pixels.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def program(*arguments):
    result = subprocess.run([PROGRAM, "classify", "--json", "--logits", *arguments], capture_output=True, check=True)
    return [json.loads(line) for line in result.stdout.decode().splitlines()]


# ---- What workers do ----

inherited = {}


def classify_alone(path):
    """Load once a process, as the first task does, then answer."""
    if "session" not in inherited:
        inherited["session"] = resnet.Model(MODEL).session()
    return inherited["session"].classify(path, top=1)[0]


def use_inherited_model(path):
    return inherited["parent"].model.session().classify(path, top=1)[0]


def use_inherited_session(path):
    try:
        return inherited["parent"].classify(path)
    except RuntimeError as error:
        del inherited["parent"]  # freed here: that must not wait for the parent's threads
        return str(error)


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = resnet.Model(MODEL)
        cls.session = cls.model.session(batch=3)

    def test_are_the_programs(self):
        answers = program(*SAMPLES)
        logits = self.session.logits(SAMPLES)  # more images than slots
        self.assertEqual(logits.dtype, np.float32)
        np.testing.assert_array_equal(logits, np.float32([answer["logits"] for answer in answers]))
        for path, answer in zip(SAMPLES, answers):
            self.assertEqual([label for label, _ in self.session.classify(path)],
                             [entry["label"] for entry in answer["top"]])
            np.testing.assert_array_equal(np.float32([score for _, score in self.session.classify(path)]),
                                          np.float32([entry["score"] for entry in answer["top"]]))

    def test_are_the_programs_in_other_precisions_and_instruction_sets(self):
        for options in ({"precision": "bf16"}, {"isa": "scalar"}):
            flags = [f"--{name}={value}" for name, value in options.items()]
            np.testing.assert_array_equal(resnet.Model(MODEL, **options).session().logits(SAMPLES[0])[0],
                                          np.float32(program(*flags, SAMPLES[0])[0]["logits"]))

    def test_every_kind_of_image(self):
        pixels = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
        want = self.session.logits(png(pixels))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "ü.png")
            path.write_bytes(png(pixels))
            for image in (path, str(path), bytearray(png(pixels)), pixels, np.asfortranarray(pixels)):
                np.testing.assert_array_equal(self.session.logits(image), want)

    def test_normalised_numbers(self):
        # Pixels that the crop takes as they are, normalised as torchvision does it, in float32.
        side = self.model.height
        session = self.model.session()
        pixels = np.full((side, side, 3), 128, np.uint8)  # of one colour: resizing changes nothing
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        values = ((np.float32(128) / np.float32(255) - mean) / std).reshape(3, 1, 1)
        np.testing.assert_array_equal(session.logits(np.broadcast_to(values, (3, side, side))), session.logits(pixels))

    def test_maps_and_embedding(self):
        maps = self.session.maps(SAMPLES)
        self.assertEqual([(stage, array.shape) for stage, array in maps.items()],
                         [(s, (4, 32 << s, 40 >> s, 40 >> s)) for s in range(4)])
        # Sums of 25 numbers in float32, in another order: each rounds by 2^-24 of what it has come to.
        np.testing.assert_allclose(self.session.embedding(SAMPLES), maps[3].mean((2, 3), np.float64), 25 * 2**-24, 1e-7)

    def test_other_sizes(self):
        shapes = self.model.session(height=320, width=192).maps(SAMPLES[0], stages=[3])[3].shape
        self.assertEqual(shapes, (1, 256, 10, 6))

    def test_a_model_outlives_its_sessions_in_cycles_and_at_the_end(self):
        program = ("import gc, resnet, sys\n"
                   "for end in range(2):\n"
                   "    ring = [resnet.Model(sys.argv[1])]\n"
                   "    ring += [ring[0].session(), ring]\n"
                   "    if not end: del ring; gc.collect()\n")
        for _ in range(3):  # the order is the interpreter's
            result = subprocess.run([sys.executable, "-c", program, MODEL], check=False, capture_output=True,
                                    env={**os.environ, "PYTHONPATH": str(ROOT / "tools")})
            self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_mistakes(self):
        with self.assertRaisesRegex(resnet.Error, "nowhere") as caught:
            resnet.Model("/nowhere")
        self.assertEqual(caught.exception.status, "RESNET_ERROR_IO")
        with self.assertRaises(resnet.Error) as caught:
            self.session.logits([SAMPLES[0], b"no image"])
        self.assertEqual(caught.exception.status, "RESNET_ERROR_IMAGE")
        for image in (np.zeros((3, 7, 7), np.float32), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))):
            with self.assertRaisesRegex(ValueError, "uint8"):
                self.session.logits(image)
        with self.assertRaisesRegex(ValueError, "z80"):
            resnet.Model(MODEL, isa="z80")
        with self.assertRaises(resnet.Error):
            self.session.maps(SAMPLES[0], stages=[4])
        self.assertEqual(self.session.classify(SAMPLES[0], top=1)[0][0], WANT[0])  # still usable


class Readme(unittest.TestCase):
    def test_the_python_program_runs_as_it_is(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": "tools"},
                                capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("('church', 0.", result.stdout)


class Together(unittest.TestCase):
    def test_threads_share_a_session_in_turn(self):
        session = resnet.Model(MODEL).session()
        answers = {}

        def work(path):
            answers[path] = session.classify(path, top=1)[0][0]

        threads = [threading.Thread(target=work, args=(path,)) for path in SAMPLES * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([answers[path] for path in SAMPLES], WANT)

    def test_other_threads_run_while_the_library_computes(self):
        # The reference takes long enough for hundreds of turns of a loop that sleeps; without the lock's release, none.
        session = resnet.Model(MODEL, isa="reference").session(batch=4)
        thread = threading.Thread(target=session.logits, args=(SAMPLES * 2,))
        turns = 0
        thread.start()
        while thread.is_alive():
            time.sleep(0.001)
            turns += 1
        self.assertGreater(turns, 10)

    def test_pools_of_processes(self):
        want = [resnet.Model(MODEL).session().classify(path, top=1)[0] for path in SAMPLES]
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                self.assertEqual(pool.map(classify_alone, SAMPLES), want, method)

    def test_what_forked_processes_inherit(self):
        inherited["parent"] = resnet.Model(MODEL).session(threads=2)  # which nothing else refers to
        want = inherited["parent"].classify(SAMPLES[0], top=1)[0]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            self.assertEqual(pool.map(use_inherited_model, SAMPLES[:1] * 4), [want] * 4)
            self.assertIn("another process", pool.apply_async(use_inherited_session, SAMPLES[:1]).get(60))
        self.assertEqual(inherited.pop("parent").classify(SAMPLES[0], top=1)[0], want)


if __name__ == "__main__":
    unittest.main()
