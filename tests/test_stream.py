#!/usr/bin/env python3
"""Streams of images through classify and embed: order, archives, shards, resuming, signals, and what can go wrong.

RESNET_PROGRAM names the program. Most of it runs a model of one block over hundreds of names of a few small images.
"""
import fcntl
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tarfile
import termios
import time
import unittest

import test_program as program
from test_program import INPUTS, IO, OK, PROGRAM, USAGE, png

QUICK = bool(os.environ.get("RESNET_TEST_QUICK"))
SANITIZED = bool(os.environ.get("RESNET_SANITIZE"))
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data/images")
KILLS = 5 if QUICK else 20
NAMES = 1500  # enough that a run is killed in the midst of it
SOON = 20     # seconds: much more than a busy machine takes for one small image, much less than a test may
SCHEDULERS = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP",
              "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE",
              "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS")


def read(path):
    with open(path, "rb") as file:
        return file.read()


def records(out):
    return [json.loads(line) for line in out.decode().splitlines()]


class StreamTest(program.ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.names = []
        for i in range(NAMES):
            name = os.path.join(cls.folder.name, f"name-{i}.png")
            os.link(cls.images[i % len(cls.images)], name)
            cls.names.append(name)
        cls.list = cls.write("names.txt", "".join(name + "\n" for name in cls.names).encode())
        cls.undisturbed = {}

    def command(self, verb, *arguments):
        return [PROGRAM, verb, "--model", self.model, *arguments]

    def stream(self, verb, *arguments, code=OK, **options):
        """What a run wrote to its standard output."""
        got, out, err = program.resnet(*self.command(verb, *arguments)[1:], **options)
        self.assertEqual(got, code, err)
        return out

    def whole(self, verb, *arguments):
        """The output of a run over the list, on one thread, that nothing disturbs."""
        if (verb, arguments) not in self.undisturbed:
            self.undisturbed[verb, arguments] = self.stream(verb, *arguments, "--threads", "1", "--files-from", self.list)
        return self.undisturbed[verb, arguments]

    def start(self, verb, *arguments, **options):
        options.setdefault("stdout", subprocess.PIPE)
        return subprocess.Popen(self.command(verb, *arguments), stdin=subprocess.PIPE, stderr=subprocess.PIPE, **options)


class Records(StreamTest):
    def test_as_one_by_one(self):
        """The default model over images of all kinds: each field of each record."""
        images = [os.path.join(DATA, name) for name in sorted(os.listdir(DATA))
                  if name.endswith((".jpg", ".png", ".bmp"))][:: 12 if QUICK else 5]
        self.assertGreater(len(images), 3)
        for arguments in ["classify", "--json", "--logits"], ["embed", "--json"]:
            alone = [program.resnet(*arguments, image) for image in images]
            code, out, err = program.resnet(*arguments, "--files-from", "-", input="\n".join(images * 3).encode())
            self.assertEqual((code, err), (OK, ""))
            self.assertEqual(out, b"".join(out for _, out, _ in alone) * 3)

    def test_any_number_of_threads(self):
        for verb in ["classify", "--json", "--logits"], ["embed", "--json"]:
            want = self.whole(*verb)
            self.assertEqual([record["file"] for record in records(want)], self.names)
            for threads in "2", "5":
                self.assertEqual(self.stream(*verb, "--threads", threads, "--files-from", self.list), want)

    def test_unordered(self):
        out = self.stream("classify", "--json", "--unordered", "--threads", "4", "--files-from", self.list)
        self.assertEqual(sorted(out.splitlines()), sorted(self.whole("classify", "--json").splitlines()))

    def test_many_arguments(self):
        self.assertEqual(self.stream("classify", "--json", *self.names), self.whole("classify", "--json"))

    def test_matrix(self):
        few, many = self.path("few.npy"), self.path("many.npy")
        self.stream("embed", *self.names[:10], "-o", few)
        self.stream("embed", "--files-from", self.write("ten.txt", "\n".join(self.names[:10]).encode()), "-o", many)
        self.assertEqual(read(few), read(many))
        self.assertEqual(read(self.path("few.tsv")), read(self.path("many.tsv")))

    def test_for_people(self):
        out = self.stream("classify", "--files-from", self.list, "--top", "1").decode().splitlines()
        self.assertEqual(out[: 2 * NAMES : 2], self.names)
        self.assertTrue(out[2 * NAMES].startswith("This model knows only:"))

    def test_broken_files_in_the_midst(self):
        os.mkdir(self.path("folder.png"))
        broken = [self.path("absent.png"), self.write("broken.png", png(1)[:50]), self.path("folder.png")]
        names = [name for i in range(20) for name in (self.names[i], broken[i % 3])]
        listing = "\n".join(names).encode()
        for more in [], ["--unordered"]:
            got, out, err = self.classify("--json", "--files-from", "-", *more, input=listing)
            self.assertEqual((got, len(err.splitlines())), (INPUTS, 20), err)
            by_name = records(out)
            for record in by_name:
                self.assertEqual("error" in record, record["file"] in broken)
            if not more:
                self.assertEqual([record["file"] for record in by_name], names)
            self.assertEqual(sorted(record["file"] for record in by_name), sorted(names))

    def test_names_that_end_with_nul_bytes(self):
        odd = [self.write(name, png(3)) for name in ("line\nfeed.png", "\n", " tab\t\r.png", os.fsdecode(b"\xff.png"))]
        listing = b"".join(os.fsencode(name) + b"\0" for name in odd)
        for option in "-0", "--null":
            out = records(self.stream("classify", "--json", option, "--files-from", "-", input=listing))
            self.assertEqual([r["file"] for r in out], [os.fsencode(name).decode(errors="replace") for name in odd])
            self.assertTrue(all("top" in record for record in out))
        self.stream("classify", "--json", "-0", self.images[0], code=USAGE)
        got, _, err = program.resnet("embed", "--model", self.model, "-0", "--files-from", "-", "-o", self.path("o.npy"),
                                     input=listing)
        self.assertEqual(got, INPUTS)
        self.assertEqual(err.count("a table of names cannot hold this one"), 3)

    def test_stdin_between_names(self):
        out = records(self.stream("classify", "--json", "-", "--files-from", self.list, input=read(self.images[1])))
        self.assertEqual(out[0], {**records(self.whole("classify", "--json"))[1], "file": "-"})
        self.assertEqual(len(out), NAMES + 1)


    def test_bench(self):
        figures = json.loads(self.stream("bench", "--json", "--threads", "2", "--files-from", self.list))
        self.assertEqual((figures["images"], figures["threads"]), (NAMES, 2))
        alone = [1 / figures[name] for name in ("decode_per_second", "network_per_second", "both_allow_per_second")]
        self.assertAlmostEqual(alone[0] + alone[1], alone[2], 9)
        self.assertAlmostEqual(figures["share"] * figures["both_allow_per_second"], figures["stream_per_second"], 2)
        self.assertGreater(figures["rss_after_100_mb"], 0)
        self.stream("bench", "--arch", "resnet18", "--files-from", self.list, code=USAGE)


class Pipes(StreamTest):
    def answer(self, running):
        """The next line; that none comes in time ends the test."""
        alarm = signal.signal(signal.SIGALRM, lambda *_: running.kill())
        signal.alarm(SOON)
        line = running.stdout.readline()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        self.assertTrue(line, "no record within the time")
        return json.loads(line)

    def send(self, running, data):
        running.stdin.write(data)
        running.stdin.flush()

    def test_a_record_comes_at_once(self):
        for verb in ("classify",), ("embed", "--threads", "3"):
            with self.start(*verb, "--json", "--files-from", "-") as running:
                self.send(running, os.fsencode(self.names[0])[:5])  # the reader waits for the rest of a name
                time.sleep(0.1)
                self.send(running, os.fsencode(self.names[0])[5:] + b"\n")
                self.assertEqual(self.answer(running)["file"], self.names[0])
                self.send(running, f"{self.names[1]}\n{self.names[2]}\nabsent.png\n{self.names[3]}\nhalf a na".encode())
                self.assertEqual([self.answer(running)["file"] for _ in range(4)],
                                 [*self.names[1:3], "absent.png", self.names[3]])
                self.assertEqual(running.communicate(timeout=SOON)[0].count(b"half a na"), 1)
                self.assertEqual(running.returncode, INPUTS)

    def test_images_wait_as_long_as_they_may(self):
        with self.start("classify", "--json", "--unordered", "--max-wait", "3600", "--threads", "1", "--files-from", "-") as running:
            self.send(running, f"{self.names[0]}\nabsent.png\n".encode())
            self.assertEqual(self.answer(running)["file"], "absent.png")  # done, and not held up
            self.send(running, "".join(name + "\n" for name in self.names[1:8]).encode())  # fills the batch
            self.assertEqual({self.answer(running)["file"] for _ in range(8)}, set(self.names[:8]))
            self.send(running, f"{self.names[8]}\n".encode())
            running.stdin.close()  # no others will come
            self.assertEqual(self.answer(running)["file"], self.names[8])
            self.assertEqual(running.wait(SOON), INPUTS)
            running.stdin = None

    def test_reader_that_goes(self):
        with self.start("classify", "--json", "--files-from", self.list) as running:
            self.answer(running)
            running.stdout.close()
            self.assertEqual(running.stderr.read(), b"")
            self.assertEqual(running.wait(SOON), -signal.SIGPIPE)

    def test_reader_that_goes_while_the_list_waits(self):
        def ignore():
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)

        with self.start("classify", "--json", "--files-from", "-", restore_signals=False, preexec_fn=ignore) as running:
            self.send(running, f"{self.names[0]}\n".encode())
            self.answer(running)
            running.stdout.close()
            self.send(running, f"{self.names[1]}\n".encode())
            self.assertEqual(running.wait(SOON), IO)
            self.assertEqual(running.stderr.read(), b"")

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            got, _, err = self.classify("--json", "--files-from", self.list, stdout=full)
        self.assertEqual((got, len(err.splitlines())), (IO, 1), err)
        self.assertIn("No space left", err)

    def test_lists_that_fail(self):
        for bad in self.folder.name, self.path("absent"), self.write("long", b"x" * 10000):
            for option in "--files-from", "--tar":
                got, out, err = self.classify("--json", option, bad)
                self.assertEqual((got, out, len(err.splitlines())), (IO, b"", 1), err)
        got, out, err = self.classify("--json", "--files-from", self.write("nul", f"{self.names[0]}\na\0b\n".encode()))
        self.assertEqual((got, len(records(out))), (IO, 1))
        self.assertIn("line 2 of the list has a NUL byte", err)
        older = self.write("older.npy", b"older")
        self.stream("embed", "--files-from", self.path("nul"), "-o", older, code=IO)
        self.assertEqual(read(older), b"older")
        self.assertFalse([name for name in os.listdir(self.folder.name) if name.endswith(".part")])

    @unittest.skipIf(SANITIZED, "sanitizers keep what was freed")
    def test_a_million_names(self):
        """A tenth of them, which do not exist, all being read; the memory after the first hundreds is that after the last. It may be a
        MiB more: what the C library keeps for each thread, and the buffers of the list, come as they are needed."""
        share = 50 if QUICK else 10
        with open(os.devnull, "wb") as nowhere, subprocess.Popen(
                self.command("classify", "--json", "--shard", f"1/{share}", "--files-from", "-"),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=nowhere) as running:
            def rest_of(first, last):
                self.send(running, "".join(f"absent/{i}\n" for i in range(first, last)).encode())
                for i in range(first, last, share):
                    self.assertTrue(running.stdout.readline().startswith(b'{"file":"absent/%d"' % i))
                with open(f"/proc/{running.pid}/status", encoding="ascii") as status:
                    return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))

            step = 400 * share  # so that their records fit into a pipe
            start = rest_of(0, step)
            for first in range(step, 1000000, step):
                peak = rest_of(first, first + step)
            self.assertLess(peak, start + 1024)
            running.stdin.close()
            self.assertEqual(running.wait(SOON), INPUTS)
            running.stdin = None

    def test_progress_with_the_time_left(self):
        seen = self.seen_on_a_terminal(self.command("classify", "--json", "--files-from", self.list, "--shard", "1/2"))
        self.assertRegex(seen.decode(), rf" of {NAMES // 2}, [\d.]+ images/s, \d+ s left")
        self.assertTrue(seen.endswith(b"\r\x1b[K"), seen[-20:])


class Archives(StreamTest):
    def archive(self, form, members, name="archive.tar"):
        path = self.path(name)
        with tarfile.open(path, "w", format=form) as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)
                if data is None:
                    info.type = tarfile.DIRTYPE
                elif isinstance(data, str):
                    info.type, info.linkname = tarfile.SYMTYPE, data
                else:
                    info.size = len(data)
                tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
        return path

    def test_as_files(self):
        contents = [read(image) for image in self.images]
        long = "l" * 90
        names = ["a.png", "b.JPG", "c.jpeg", "sub/folder/d.Png", "e.BMP", "x.png", f"{long}/{long}.png", "last.png"]
        limits = {tarfile.USTAR_FORMAT: [], tarfile.GNU_FORMAT: [f"{long}/{long}/{long}/{long}.png"],
                  tarfile.PAX_FORMAT: [f"{long}/{long}/{long}/{long}ü.png"]}
        for form, more in limits.items():
            images = [(name, contents[i % 6]) for i, name in enumerate([*names, *more])]
            others = [("dir.png", None), ("link.png", "a.png"), (f"{long}link.png", long), ("text.txt", b"text" * 999),
                      ("png", b"x"), ("empty.txt", b"")]
            mixed = [member for pair in zip(others + [("y.txt", b"z")] * 9, images) for member in pair]
            path = self.archive(form, mixed)
            want = [{**record, "file": name} for (name, _), record in
                    zip(images, records(self.whole("classify", "--json")) * 2)]
            self.assertEqual(records(self.stream("classify", "--json", "--tar", path)), want)
            with open(path, "rb") as file:
                self.assertEqual(records(self.stream("classify", "--json", "--tar", "-", stdin=file)), want)
            self.assertEqual(records(self.stream("classify", "--json", "--tar", "-", input=read(path))), want)
            parts = [records(self.stream("classify", "--json", "--tar", path, "--shard", f"{i}/3")) for i in (1, 2, 3)]
            self.assertEqual(parts, [want[i::3] for i in range(3)])

    def test_resume(self):
        path = self.archive(tarfile.PAX_FORMAT, [(f"{i}.png", read(self.images[i % 6])) for i in range(30)])
        want, file = self.stream("embed", "--json", "--tar", path), self.path("tar.json")
        self.write(file, want[: len(want) // 2])
        self.stream("embed", "--json", "--tar", path, "--resume", file)
        self.assertEqual(read(file), want)

    def test_broken_members_and_archives(self):
        members = [("0.png", read(self.images[0])), ("1.png", b"no image"), ("2.png", b""), ("3.png", read(self.images[3]))]
        data = read(self.archive(tarfile.USTAR_FORMAT, members))
        got, out, err = self.classify("--json", "--tar", "-", input=data)
        self.assertEqual((got, len(err.splitlines())), (INPUTS, 2), err)
        self.assertEqual(["error" in record for record in records(out)], [False, True, True, False])
        for cut in 0, 100, 512, 600, 10 ** 4:
            cut = min(cut, data.rindex(b"IEND") - 5)
            got, out, err = self.classify("--json", "--tar", "-", input=data[:cut])
            self.assertEqual(got, IO, (cut, err))
            self.assertIn("byte", err)
            self.assertTrue(all(record["file"] in ("0.png", "1.png", "2.png", "3.png") for record in records(out)))

    def test_a_member_that_is_too_large(self):
        path = self.path("large.tar")
        with open(path, "wb") as file:
            for size in 64 << 20, (64 << 20) + 1:
                info = tarfile.TarInfo(f"{size}.png")
                info.size = size
                file.write(info.tobuf())
                file.seek(-(-size // 512) * 512, os.SEEK_CUR)
            file.write(bytes(1024))
        got, out, _ = self.classify("--json", "--tar", path)
        errors = [record["error"] for record in records(out)]
        self.assertEqual((got, len(errors)), (INPUTS, 2))
        self.assertNotIn("64 MiB", errors[0])
        self.assertIn("64 MiB", errors[1])


class Shards(StreamTest):
    def shard(self, text, **variables):
        environment = {key: value for key, value in os.environ.items() if key not in SCHEDULERS}
        return self.classify("--json", "--files-from", self.list, "--shard", text, env={**environment, **variables})

    def test_partition(self):
        whole = records(self.whole("classify", "--json"))
        for count in 1, 2, 7:
            for i in range(count):
                got, out, err = self.shard(f"{i + 1}/{count}")
                self.assertEqual((got, err), (OK, ""))
                self.assertEqual(records(out), whole[i::count])

    def test_auto(self):
        whole = [record["file"] for record in records(self.whole("classify", "--json"))]
        array = dict(zip(SCHEDULERS, ("8", "3", "2", "3")))
        for third, variables in ((3, array), (2, {**array, "SLURM_ARRAY_TASK_ID": "5", "SLURM_PROCID": "0", "SLURM_NTASKS": "9"}),
                                 (1, {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0"}),
                                 (1, {"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}),
                                 (2, {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}),
                                 (3, {"PMI_RANK": "2", "PMI_SIZE": "3"}),
                                 (1, {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "3"})):
            got, out, err = self.shard("auto", **variables)
            self.assertEqual((got, err), (OK, ""), variables)
            self.assertEqual([record["file"] for record in records(out)], whole[third - 1::3], variables)

    def test_what_is_none(self):
        for text, variables, word in (
                ("auto", {}, "no scheduler"), ("0/3", {}, "I/N"), ("4/3", {}, "I/N"), ("1", {}, "I/N"), ("1/2/3", {}, "I/N"),
                ("-1/3", {}, "I/N"), ("1/4294967296", {}, "I/N"), ("", {}, "I/N"), ("1/ 3", {}, "I/N"),
                ("auto", {"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETIONS is not set"),
                ("auto", {"PMI_RANK": "3", "PMI_SIZE": "3"}, "PMI_RANK is 3"),
                ("auto", {"PMI_RANK": "x", "PMI_SIZE": "3"}, "PMI_RANK is x"),
                ("auto", dict(zip(SCHEDULERS, ("7", "3", "2", "3"))), "without gaps"),
                ("auto", dict(zip(SCHEDULERS, ("7", "3", "2", "0"))), "without gaps"),
                ("auto", dict(zip(SCHEDULERS, ("1", "3", "2", "1"))), "without gaps")):
            got, out, err = self.shard(text, **variables)
            self.assertEqual((got, out), (USAGE, b""), (text, variables, err))
            self.assertIn(word, err)


class Resume(StreamTest):
    def setUp(self):
        self.out = self.path(self.id() + ".json")
        self.npy, self.tsv = self.path(self.id() + ".npy"), self.path(self.id() + ".tsv")

    def wait_for_more(self, running, file, more):
        """Until the file has so many more bytes, or the program ends."""
        def size():
            return os.path.getsize(file) if os.path.exists(file) else 0

        enough = size() + more
        while size() < enough and running.poll() is None:
            time.sleep(0.0005)

    def kill_and_resume(self, verb, file, whole, *arguments):
        """Kill runs at random moments, most of them in the midst of the work, until KILLS had something left to do."""
        rng, killed, sizes = random.Random(1), 0, set()
        command = self.command(verb, "--threads", "2", "--files-from", self.list, "--resume", file, *arguments)
        while killed < KILLS:
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
                if rng.random() < 0.25:
                    time.sleep(rng.random() * 0.05)
                else:
                    self.wait_for_more(running, file, rng.randrange(1, whole // 5))
                running.kill()
                running.wait()
            killed += running.returncode < 0
            sizes.add(os.path.exists(file) and os.path.getsize(file))
            if running.returncode >= 0:
                self.assertEqual(running.returncode, OK)
                os.remove(file)
        self.assertGreater(len(sizes), KILLS / 3)  # they got somewhere
        self.stream(verb, *command[4:])

    def test_killed(self):
        whole = self.whole("classify", "--json", "--logits")
        self.kill_and_resume("classify", self.out, len(whole), "--json", "--logits")
        self.assertEqual(read(self.out), whole)

    def test_killed_unordered(self):
        whole = self.whole("embed", "--json")
        self.kill_and_resume("embed", self.out, len(whole), "--json", "--unordered")
        self.assertEqual(sorted(read(self.out).splitlines()), sorted(whole.splitlines()))

    def new_matrix(self):
        file = self.path("new.npy")
        if not os.path.exists(file):
            self.stream("embed", "--files-from", self.list, "-o", file)
        return read(file), read(self.path("new.tsv"))

    def test_killed_matrix(self):
        matrix, table = self.new_matrix()
        self.kill_and_resume("embed", self.npy, len(matrix))
        self.assertEqual((read(self.npy), read(self.tsv)), (matrix, table))

    def test_killed_matrix_unordered(self):
        matrix, table = self.new_matrix()
        self.kill_and_resume("embed", self.npy, len(matrix), "--unordered")

        def rows(matrix, table):
            size = (len(matrix) - 128) // NAMES
            return sorted((line, matrix[128 + i * size:][:size]) for i, line in enumerate(table.splitlines()[1:]))

        self.assertEqual(read(self.npy)[:128], matrix[:128])
        self.assertEqual(rows(read(self.npy), read(self.tsv)), rows(matrix, table))

    # ---- Torn files ----

    def test_torn_record(self):
        names = [*self.names[:4], "absent.png", self.names[4], self.names[4]]
        listing = self.write("torn.txt", "\n".join(names).encode())
        whole = self.stream("classify", "--json", "--files-from", listing, code=INPUTS)
        for cut in [*range(0, 40), *range(len(whole) - 40, len(whole) + 1)]:
            self.write(self.out, whole[:cut])
            self.stream("classify", "--json", "--files-from", listing, "--resume", self.out, code=INPUTS)
            self.assertEqual(read(self.out), whole, cut)

    def test_torn_matrix(self):
        listing = self.write("torn.txt", "\n".join(self.names[:6]).encode())
        self.stream("embed", "--files-from", listing, "--resume", self.npy)
        matrix, table = read(self.npy), read(self.tsv)
        rng = random.Random(2)
        cuts = [(0, 0), (0, 7), (5, 30), (128, 40), (127, 200), (len(matrix), len(table) - 1), (len(matrix) - 1, len(table))]
        for a, b in cuts + [(rng.randrange(128, len(matrix)), rng.randrange(40, len(table))) for _ in range(20)]:
            self.write(self.npy, matrix[:a])
            self.write(self.tsv, table[:b])
            self.stream("embed", "--files-from", listing, "--resume", self.npy)
            self.assertEqual((read(self.npy), read(self.tsv)), (matrix, table), (a, b))
        self.write(self.npy, matrix[:-1])
        self.stream("embed", "--files-from", os.devnull, "--resume", self.npy)
        self.assertEqual(read(self.npy)[128:], matrix[128: len(matrix) - 4 * 8])
        self.assertEqual(read(self.tsv), b"".join(table.splitlines(True)[:-1]))

    def test_a_matrix_can_be_read_between(self):
        """Its head tells no more rows than there are, and all of them once the run ends or goes on."""
        with self.start("embed", "--files-from", "-", "--resume", self.npy) as running:
            running.stdin.write(f"{self.names[0]}\n{self.names[1]}\n".encode())
            running.stdin.flush()
            deadline = time.monotonic() + SOON
            while not (os.path.exists(self.tsv) and read(self.tsv).count(b"\n") == 3):
                self.assertLess(time.monotonic(), deadline)
            running.kill()
        for want in b"(0,", b"(2,":
            self.assertIn(want, read(self.npy)[:128])
            self.stream("embed", "--files-from", "/dev/null", "--resume", self.npy)
        self.assertEqual(program.resnet("similar", "--model", self.model, self.names[0], "--in", self.npy)[0], OK)

    def test_full_disk(self):
        def little():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))

        for verb, file in (["classify", "--json"], self.out), (["embed"], self.npy):
            got, _, err = program.resnet(*self.command(*verb, "--files-from", self.list, "--resume", file)[1:],
                                         preexec_fn=little)
            self.assertEqual((got, len(err.splitlines())), (IO, 1), err)
            self.assertIn("cannot be written", err)
            self.stream(*verb, "--files-from", self.list, "--resume", file)
        self.assertEqual(read(self.out), self.whole("classify", "--json"))
        self.assertEqual((read(self.npy), read(self.tsv)), self.new_matrix())

    # ---- What counts as done ----

    def test_names_that_come_twice(self):
        listing = self.write("twice.txt", "\n".join([self.names[0], self.names[1], self.names[0], self.names[0]]).encode())
        whole = self.stream("classify", "--json", "--files-from", listing)
        for done in range(5):
            self.write(self.out, b"".join(whole.splitlines(True)[:done]))
            self.stream("classify", "--json", "--files-from", listing, "--resume", self.out)
            self.assertEqual(read(self.out), whole)

    def test_odd_names(self):
        names = [self.write(name, png(4)) for name in ('q"uo\\te.png', "line\nfeed.png", os.fsdecode(b"bad\xff.png"), "ü.png")]
        listing = b"".join(os.fsencode(name) + b"\0" for name in names)
        for _ in range(2):
            self.stream("classify", "--json", "-0", "--files-from", "-", "--resume", self.out, input=listing)
            self.assertEqual(len(records(read(self.out))), 4)

    def test_an_empty_list_and_a_done_one(self):
        for listing in os.devnull, self.list, self.list:
            self.stream("classify", "--json", "--files-from", listing, "--resume", self.out)
        self.assertEqual(read(self.out), self.whole("classify", "--json"))

    def test_a_failed_image_is_told_again(self):
        """Its record is not made again, but the exit code is that of the whole list."""
        for _ in range(2):
            self.stream("classify", "--json", self.names[0], "absent.png", "--resume", self.out, code=INPUTS)
            self.assertEqual(len(records(read(self.out))), 2)
        for _ in range(2):
            self.stream("embed", self.names[0], "absent.png", "--resume", self.npy, code=INPUTS)
            self.assertEqual(len(read(self.tsv).splitlines()), 2)

    # ---- What is refused ----

    def refused(self, *arguments, code=IO, files=()):
        before = [read(file) for file in files]
        got, out, err = program.resnet(arguments[0], "--model", self.model, *arguments[1:])
        self.assertEqual((got, out), (code, b""), err)
        self.assertEqual([read(file) for file in files], before)
        return err

    def test_files_that_come_from_elsewhere(self):
        embedded = self.stream("embed", "--json", self.names[0])
        for data in (b"hello", b"hello\n", b"\n", embedded, b'{"file":"a.png","top":[]\n', b'{"file":"a.png","top":[]}\n\n',
                     b'{"file":"a', b'{"file":"a.png"}\n', bytes(100) + b"\n", bytes(100), read(self.list), self.model_bytes):
            self.write(self.out, data)
            if data == b'{"file":"a':
                self.stream("classify", "--json", "--files-from", "/dev/null", "--resume", self.out)
                self.assertEqual(read(self.out), b"")
            else:
                self.refused("classify", "--json", self.names[0], "--resume", self.out, files=[self.out])
        for file in "/dev/full", self.folder.name, self.path("absent/file"):
            self.refused("classify", "--json", self.names[0], "--resume", file)

    def test_matrices_that_come_from_elsewhere(self):
        self.stream("embed", *self.names[:3], "--resume", self.npy)
        matrix, table = read(self.npy), read(self.tsv)
        lines = table.splitlines(True)
        for a, b in ((b"hello", table), (matrix, b""), (matrix, b"hello\n"), (matrix, b"hello"), (matrix[:-9] + b"x" * 9, table),
                     (matrix, lines[0] + lines[2] + lines[1]), (matrix.replace(b"f4", b"i4"), table), (matrix, table + b"\0\n"),
                     (matrix.replace(b"8,)", b"9,)"), table)):
            self.write(self.npy, a)
            self.write(self.tsv, b)
            if b.endswith(b"\0\n"):  # behind all rows, it is cut off
                self.stream("embed", *self.names[:3], "--resume", self.npy)
                self.assertEqual(read(self.tsv), table)
            else:
                self.refused("embed", *self.names[:3], "--resume", self.npy, files=[self.npy, self.tsv])
        self.write(self.npy, matrix)
        self.write(self.tsv, table)
        err = self.refused("embed", *self.names[:3], "--resize", "40", "--resume", self.npy, files=[self.npy, self.tsv])
        self.assertIn("--resize", err)

    def test_two_at_once(self):
        for verb, file in (["classify", "--json"], self.out), (["embed"], self.npy):
            with self.start(*verb, "--files-from", "-", "--resume", file) as running:
                running.stdin.write(f"{self.names[0]}\n".encode())
                running.stdin.flush()
                deadline = time.monotonic() + SOON
                while not (os.path.exists(file) and os.path.getsize(file) > 128):
                    self.assertLess(time.monotonic(), deadline)
                self.assertIn("another process", self.refused(*verb, self.names[1], "--resume", file))
                running.communicate(timeout=SOON)
                self.assertEqual(running.returncode, OK)

    def test_usage(self):
        for arguments in (["classify", "--resume", self.out], ["embed", "--resume", self.out],
                          ["embed", "--json", "--resume", self.npy], ["embed", "-o", self.npy, "--resume", self.npy],
                          ["classify", "--json", "--tar", "-", "--files-from", "-"]):
            self.refused(*arguments, self.names[0], code=USAGE)
            self.assertFalse(os.path.exists(self.out) or os.path.exists(self.npy))


class Signals(StreamTest):
    def test_stops_in_good_order_and_goes_on(self):
        for number, name in (signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"):
            file = self.path(name + ".json")
            with self.start("classify", "--json", "--threads", "2", "--files-from", self.list, "--resume", file) as running:
                deadline = time.monotonic() + SOON
                while not (os.path.exists(file) and os.path.getsize(file)):
                    self.assertLess(time.monotonic(), deadline)
                running.send_signal(number)
                err = running.communicate(timeout=SOON)[1].decode()
            self.assertEqual(running.returncode, 128 + number, err)
            match = re.fullmatch(rf"resnet: stopped by {name} after (\d+) images, before (.*)\n", err)
            self.assertTrue(match, err)
            count = int(match.group(1))
            self.assertEqual(match.group(2), self.names[count])
            whole = self.whole("classify", "--json")
            self.assertEqual(read(file), b"".join(whole.splitlines(True)[:count]))
            self.stream("classify", "--json", "--files-from", self.list, "--resume", file)
            self.assertEqual(read(file), whole)

    def test_while_the_list_or_the_archive_waits(self):
        for option in "--files-from", "--tar":
            with self.start("classify", "--json", option, "-", "--max-wait", "3600") as running:
                time.sleep(0.3)  # it is likely to wait for the list then; if not, the test is only weaker
                running.send_signal(signal.SIGTERM)
                got = running.wait(SOON)
                err = running.stderr.read().decode()
            if got != -signal.SIGTERM:  # too early, on a machine that is very busy
                self.assertEqual(got, 128 + signal.SIGTERM)
                self.assertIn("stopped by SIGTERM after 0 images", err)

    def test_a_new_matrix_is_whole_or_not_at_all(self):
        file = self.write("kept.npy", b"older")
        with self.start("embed", "--files-from", "-", "-o", file) as running:
            running.stdin.write(f"{self.names[0]}\n".encode())
            running.stdin.flush()
            deadline = time.monotonic() + SOON
            while not any(".part" in name for name in os.listdir(self.folder.name)):
                self.assertLess(time.monotonic(), deadline)
            time.sleep(0.3)
            running.send_signal(signal.SIGTERM)
            got = running.wait(SOON)
        self.assertIn(got, (128 + signal.SIGTERM, -signal.SIGTERM))
        self.assertEqual(read(file), b"older")
        if got > 0:
            self.assertFalse([name for name in os.listdir(self.folder.name) if name.endswith(".part")])

    @staticmethod
    def waiting_in(pipe):
        return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)

    @unittest.skipIf("thread" in os.environ.get("RESNET_SANITIZE", ""), "which keeps signals from a thread that writes")
    def test_a_second_signal_ends_at_once(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # before anything is in it
        with self.start("embed", "--json", "--threads", "1", "--files-from", self.list, stdout=writer) as running:
            os.close(writer)
            before = 0
            while (filled := self.waiting_in(reader)) < 2048 or filled != before:  # then the writer waits
                before = filled
                time.sleep(0.5)
            running.send_signal(signal.SIGTERM)
            with self.assertRaises(subprocess.TimeoutExpired):
                running.wait(0.5)
            running.send_signal(signal.SIGTERM)
            self.assertEqual(running.wait(SOON), -signal.SIGTERM)

    def test_what_was_ignored_stays_ignored(self):
        def ignore():
            signal.signal(signal.SIGINT, signal.SIG_IGN)

        with self.start("classify", "--json", "--files-from", "-", preexec_fn=ignore) as running:
            running.stdin.write(f"{self.names[0]}\n".encode())
            running.stdin.flush()
            running.stdout.readline()
            running.send_signal(signal.SIGINT)
            out, _ = running.communicate(f"{self.names[1]}\n".encode(), timeout=SOON)
            self.assertEqual((running.returncode, len(records(out))), (OK, 1))


if __name__ == "__main__":
    if not PROGRAM:
        sys.exit("RESNET_PROGRAM must name the program")
    unittest.main()
