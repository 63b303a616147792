#!/usr/bin/env python3
"""The program when calls to the system fail, when the disk is full, and when it is killed.

For each command and each kind of call, the k-th fails, once and for ever after, for every k (without RESNET_TEST_SOAK, for some of many): the program must end by
itself, with code 0 and the usual answer, or with another code and a line that says why; and what it writes must be the
old file or the whole new one. RESNET_FAULTS names the library of tests/faults.c, RESNET_PROGRAM the program.
"""
import json
import math
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import unittest
import zipfile

import test_program as program
from test_program import IO, PROGRAM, png

FAULTS = os.environ.get("RESNET_FAULTS")
QUICK, SOAK = (bool(os.environ.get("RESNET_TEST_" + name)) for name in ("QUICK", "SOAK"))
CALLS = "memory", "open", "pread", "fopen", "fdopen", "fread", "fflush", "fsync", "fclose", "rename", "pthread_create"
WRITING = "open", "fdopen", "fflush", "fsync", "fclose", "rename"
MOST = 10**6 if SOAK else 10 if QUICK else 20  # calls of one kind that are tried
OLD = b"older"
FAR = 100  # what the network answers lies between 0 and this, on average: less than 1 away, relatively


def some(numbers, most=MOST):
    """All, or so many of them that are spread evenly."""
    step = max(1, len(numbers) / most)
    return [numbers[int(i * step)] for i in range(min(most, len(numbers)))]


def is_whole(name, data):
    if name.endswith(".tsv"):
        return data.endswith(b"\n")
    if name.endswith(".json"):
        return bool(json.loads(data))
    if name.endswith(".png"):
        return data[-8:-4] == b"IEND"
    if name.endswith(".npy"):
        shape = re.search(rb"'shape': \(([0-9, ]+)\)", data[:128]).group(1).split(b",")
        return len(data) == 128 + 4 * math.prod(int(size) for size in shape if size.strip())
    if name.endswith("/k"):  # what teach was taught with: a checksum of all that is behind it
        return data[:4] == b"\x8bRNE" and struct.unpack_from("<I", data, 12)[0] == program.crc32c(data[16:])
    return data[:4] == b"\x8bRNT" and struct.unpack_from("<Q", data, 16)[0] == len(data)


class Faults(program.ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pictures = cls.path_of("pictures")
        for seed in range(3):
            cls.write(f"{cls.pictures}/{seed}.png", png(seed))
        cls.list = cls.write("list.txt", f"{cls.pictures}/0.png\n{cls.pictures}/1.png\n".encode())
        cls.table = cls.write("pictures.tsv", b"file\tclass\npictures/0.png\t0\npictures/1.png\t1\n")
        cls.classes = cls.path_of("classes")
        for seed in range(6):
            cls.write(f"{cls.classes}/{'cat' if seed % 2 else 'dog'}/{seed}.png", png(seed))
        cls.dump = cls.path_of("dump.npz")
        with zipfile.ZipFile(cls.dump, "w") as archive:
            archive.writestr("input.npy", npy(1, (1, 3, 32, 32)))
            archive.writestr("fc.npy", npy(FAR, (1, 4)))

    @classmethod
    def path_of(cls, name):
        return os.path.join(cls.folder.name, name)

    def commands(self):
        """Arguments, and the files that they write, in a folder that a test has of its own."""
        picture, out = f"{self.pictures}/0.png", self.path_of(self.id() + "/out")
        self.write(out + "/keep", b"")
        return {
            "classify": (["classify", "--model", self.model, picture, f"{self.pictures}/1.png"], []),
            "stream": (["classify", "--model", self.model, "--json", "--files-from", self.list], []),
            "inspect": (["inspect", "--json", self.model], []),
            "eval": (["eval", "--model", self.model, "--labels-tsv", self.table], []),
            "quantize": (["quantize", "--model", self.model, "--calibrate", self.pictures, "-o", out + "/q"], [out + "/q"]),
            "bf16": (["quantize", "--model", self.model, "--precision", "bf16", "-o", out + "/q"], [out + "/q"]),
            "embed": (["embed", "--model", self.model, picture, "-o", out + "/e.npy"], [out + "/e.npy", out + "/e.tsv"]),
            "features": (["features", "--model", self.model, "--level", "C2", picture, "-o", out + "/f.npy"],
                         [out + "/f.npy"]),
            "explain": (["explain", "--model", self.model, picture, "-o", out + "/o.png"], [out + "/o.png"]),
            "similar": (["similar", "--model", self.model, picture, "--in", self.pictures, "--index", out + "/i.npy",
                         "-o", out + "/s.png"], [out + "/i.npy", out + "/i.tsv", out + "/s.png"]),
            "teach": (["teach", self.classes, "--model", self.model, "--augment", "none", "--strength", "1", "-o", out + "/m",
                       "--keep", out + "/k"], [out + "/m", out + "/k"]),
            "diff": (["diff", self.model, "--against", self.dump, "--tolerance", "1", "--json"], []),
            "trace": (["bench", "--model", self.model, "--seconds", "0", "--trace", out + "/t.json"], [out + "/t.json"]),
        }

    def restore(self, files):
        for file in files:
            self.write(file, OLD)

    def run_it(self, arguments, files, **environment):
        self.restore(files)
        threads = [] if arguments[0] in ("inspect", "diff") else ["--threads", "2"]
        done = subprocess.run([PROGRAM, *arguments, *threads],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
                              env={**os.environ, **environment})
        return done.returncode, done.stdout, done.stderr, [self.read(file) for file in files]

    @staticmethod
    def read(path):
        with open(path, "rb") as file:
            return file.read()

    def count(self, arguments, files, call):
        counter = self.path_of(self.id() + "/count")
        self.write(counter, b"")
        self.run_it(arguments, files, LD_PRELOAD=FAULTS, FAULT_CALL=call, FAULT_COUNT=counter)
        return int(self.read(counter) or 0)

    def old_or_complete(self, files, usual, where):
        """The old file or a whole one: the usual, or, where a picture could not be read, one of the others."""
        for file, complete in zip(files, usual):
            new = self.read(file)
            if new not in (OLD, complete):
                self.assertTrue(is_whole(file, new), (where, file))

    def check(self, usual, got, files, where):
        code, out, err, written = got
        self.assertIn(code, range(5), (where, err))
        self.old_or_complete(files, usual[3], where)
        if code or where[0] == "similar" and err:  # a picture that the sheet lacks is told
            self.assertTrue(err.strip() or b"error" in out, where)
        elif where[0] != "trace":
            self.assertEqual(written, usual[3], where)
            if where[0] not in ("eval", "teach"):  # these tell times
                self.assertEqual(out, usual[1], where)

    def fail_each(self, name):
        arguments, files = self.commands()[name]
        usual = self.run_it(arguments, files)
        self.assertEqual(usual[0], 0, usual[2])
        tried = 0
        for call in CALLS:
            for k in some(range(1, self.count(arguments, files, call) + 1), MOST if name != "trace" or SOAK else 4):
                for forever in {}, {"FAULT_FOREVER": "1"}:
                    got = self.run_it(arguments, files, LD_PRELOAD=FAULTS, FAULT_CALL=call, FAULT_AT=str(k), **forever)
                    self.check(usual, got, files, (name, call, k, forever))
                    self.no_parts((name, call, k, forever))
                    tried += 1
        self.assertGreater(tried, 20)

    def no_parts(self, where):
        left = [name for name in os.listdir(self.path_of(self.id() + "/out")) if name.endswith(".part")]
        self.assertEqual(left, [], where)

    # ---- The disk ----

    def test_full_disk(self):
        for name, (arguments, files) in self.commands().items():
            if not files:
                continue
            usual = self.run_it(arguments, files)
            for limit in 0, 100, max(map(len, usual[3])) * 9 // 10:
                self.restore(files)
                code, _, err = program.resnet(*arguments, preexec_fn=lambda: small_files(limit))
                self.assertEqual(code, IO, (name, limit, err))
                self.assertTrue(err, (name, limit))
                self.old_or_complete(files, usual[3], name)
                self.no_parts((name, limit))

    def test_full_output(self):
        for name, (arguments, files) in self.commands().items():
            usual = self.run_it(arguments, files)
            self.restore(files)
            if not usual[1]:
                continue
            with open("/dev/full", "wb") as full:
                code, _, err = program.resnet(*arguments, stdout=full)
            self.assertEqual(code, IO, (name, err))
            self.assertIn("No space left", err, name)
            self.old_or_complete(files, usual[3], name)

    def test_read_only_folder(self):
        os.chmod(self.folder.name, 0o755)
        for name, (arguments, files) in self.commands().items():
            if not files:
                continue
            self.restore(files)
            folder = os.path.dirname(files[0])
            os.chmod(folder, 0o555)
            try:
                code, _, err = program.resnet(*arguments, preexec_fn=be_nobody)
            except (PermissionError, subprocess.SubprocessError):
                self.skipTest("another user cannot run the program where it is")
            finally:
                os.chmod(folder, 0o755)
            self.assertEqual(code, IO, (name, err))
            self.assertTrue(all(self.read(file) == OLD for file in files), name)

    # ---- The end ----

    def test_killed_at_every_call(self):
        for name, (arguments, files) in self.commands().items():
            if not files:
                continue
            usual = self.run_it(arguments, files)
            for call in WRITING:
                for k in some(range(1, self.count(arguments, files, call) + 1)):
                    got = self.run_it(arguments, files, LD_PRELOAD=FAULTS, FAULT_CALL=call, FAULT_AT=str(k), FAULT_KILL="1")
                    self.assertEqual(got[0], -signal.SIGKILL, (name, call, k))
                    self.old_or_complete(files, usual[3], (name, call, k))

    def test_killed_at_random_moments(self):
        rng = random.Random(1)
        for name, (arguments, files) in self.commands().items():
            if not files:
                continue
            usual = self.run_it(arguments, files)
            for _ in range(3 if QUICK else 20):
                self.restore(files)
                with subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as running:
                    try:
                        running.wait(rng.random() * 0.05)
                    except subprocess.TimeoutExpired:
                        running.kill()
                self.old_or_complete(files, usual[3], name)


def npy(number, shape):
    """NumPy's file of an array of this number."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + struct.pack("<f", number) * math.prod(shape)


def small_files(limit):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def be_nobody():
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


for command in "classify", "stream", "inspect", "eval", "quantize", "bf16", "embed", "features", "explain", "similar", \
        "teach", "diff", "trace":
    setattr(Faults, f"test_each_call_of_{command}", lambda self, name=command: self.fail_each(name))

if __name__ == "__main__":
    if not PROGRAM or not FAULTS:
        print("skipped: RESNET_PROGRAM and RESNET_FAULTS name no program and no library of faults")
        sys.exit(77)
    unittest.main()
