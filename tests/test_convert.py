#!/usr/bin/env python3
"""Tests what tools/convert.py writes, how it treats files and options, and its checksum."""
import contextlib
import errno
import os
import random
import resource
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import unittest
from unittest import mock

from convert_support import (EMPTY_ORDERED_DICT, Case, archive, array_tensor, convert, crc32c_by_bits, element_strides,
                             f32,
                             legacy, legacy_stream, name_of, names_and_shapes, np, number, onnx, parse_tensors, pth,
                             rounded,
                             safetensors, state_pickle, storage, tensor, text, tiny, u32)
from checkpoints import crc32c  # where it is: convert_support.py


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

    def test_every_container_and_wrapping_give_the_same_file(self):
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
                      archive(wrapped.replace(b"\n\0\0\0state_dict", b"\3\0\0\0ema"), storages).bytes(),
                      safetensors(dict(reversed(arrays.items()))), legacy(arrays), legacy(arrays, **ordered),
                      legacy_stream(wrapped, storages), onnx(arrays), onnx(arrays, renamed=True)):
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
        report = self.report
        self.assertEqual((data[39], u32(data, 76, 2), u32(data, 92)), (1, (65, 65), 0))
        self.assertEqual(u32(self.converted(pth(tiny()), "--crop", "60x90"), 76, 2), (60, 90))
        self.assertEqual(u32(self.converted(pth(tiny()), "--crop", "288"), 92), 288 * 8 // 7)
        self.assertEqual((f32(data, 128, 4), f32(data, 192, 4)), ([-1, 0, 0.5, 0], rounded([1, 2, 0.3, 0])))
        self.assertIn("no resize, crop 65, mean -1,0,0.5, std 1,2,0.3", report)

    def test_report(self):
        self.converted(pth(tiny()))
        parameters = sum(array.size for name, array in tiny().items() if "running" not in name)
        for part in (f"{parameters:,}", "resnet (basic blocks 1-1, width 4)", "3 x 224 x 224", "3, no labels",
                     "ZIP of torch.save, names of torchvision",
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


class Crc32c(unittest.TestCase):
    def test_known_vectors(self):  # the last four: RFC 3720
        for data, crc in ((b"", 0), (b"a", 0xC1D04330), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA),
                          (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E),
                          (bytes(range(31, -1, -1)), 0x113FDB5C)):
            self.assertEqual(crc32c.crc32c(data), crc, data)

    def test_every_short_length_and_every_cut(self):
        data = random.Random(2).randbytes(70)
        for size in range(len(data) + 1):
            whole = crc32c_by_bits(data[:size])
            self.assertEqual(crc32c.crc32c(data[:size]), whole)
            self.assertEqual(crc32c.crc32c(data[size // 3:size], crc32c.crc32c(data[:size // 3])), whole)

    def test_more_than_one_fold(self):
        data = random.Random(3).randbytes(5000)
        with mock.patch.object(crc32c, "FOLD", 1024):
            self.assertEqual(crc32c.crc32c(data), crc32c_by_bits(data))
        self.assertEqual(crc32c.crc32c(data), crc32c_by_bits(data))


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
                (limit, b"", "not a checkpoint"), (limit, legacy(tiny()), "behind its last storage"),
                (limit, struct.pack("<Q", 1 << 30) + b"{", "more than is read"),
                (limit, onnx(tiny()), "protobuf field")):
            path = self.path("in", front)
            os.truncate(path, size)
            tracemalloc.start()
            status, _, message = self.run_main(path, "-o", self.output)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.assertEqual(status, 3)
            self.assertIn(reason, message)
            self.assertLess(peak, 16 << 20)  # of a legacy file up to 4 MiB are looked at, through a buffer

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

    def run_apart(self, path, **options):
        """The program as a process of its own, not waited for."""
        return subprocess.Popen([sys.executable, convert.__file__, path, "-o", self.output], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, **options)

    def test_killed_at_random_moments(self):
        rng, path = random.Random(1), self.path("in", pth(tiny()))
        started = time.monotonic()
        self.run_apart(path).communicate()
        seconds = time.monotonic() - started
        with open(self.output, "rb") as file:
            complete = file.read()
        for _ in range(10):
            self.path("out.resnet", b"old")
            with self.run_apart(path) as running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(rng.uniform(0.6, 1.05) * seconds)  # Python itself takes the most of it to start
                running.kill()
            with open(self.output, "rb") as file:
                self.assertIn(file.read(), (b"old", complete))

    @unittest.skipUnless(os.geteuid() == 0, "another user than root is stopped by test_read_only_folder")
    def test_read_only_folder_of_somebody_else(self):
        def be_nobody():
            os.setgid(65534)
            os.setuid(65534)
        path = self.path("in", pth(tiny()))
        self.path("out.resnet", b"old")
        os.chmod(self.folder, 0o755)
        try:  # where Python itself is root's alone, or the tools are
            subprocess.run([sys.executable, convert.__file__, "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           preexec_fn=be_nobody, check=True)
        except (PermissionError, subprocess.SubprocessError):
            self.skipTest("another user cannot run the program where it is")
        with self.run_apart(path, preexec_fn=be_nobody) as running:
            self.assertIn(b"Permission denied", running.stderr.read())
        self.assertEqual(running.returncode, 4)
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out.resnet"])
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), b"old")

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
            self.check_old_file_stays(path, mock.patch.object(os, call, side_effect=full), reason="No space")

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
        with mock.patch.object(os, "fsync", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.run_main(path, "-o", self.output)
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out.resnet"])
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_numbers_are_on_the_disk_before_the_name_is(self):
        calls = mock.Mock()
        with mock.patch.object(os, "replace", wraps=os.replace) as replace:
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


class Inspect(Case):
    def test_says_what_a_conversion_would_say_and_writes_nothing(self):
        self.converted(pth(tiny()))
        os.remove(self.output)
        status, report, message = self.run_main(self.path("in", pth(tiny())), "--inspect")
        self.assertEqual((status, message), (0, ""))
        self.assertEqual(report.split("\n")[1:], self.report.split("\n")[1:])
        self.assertIn("in: converts to", report)
        self.assertEqual(os.listdir(self.folder), ["in"])

    def test_refuses_what_a_conversion_would_refuse(self):
        tensors = tiny()
        tensors["fc.bias"][0] = np.nan
        status, _, message = self.run_main(self.path("in", pth(tensors)), "--inspect")
        self.assertEqual(status, 3)
        self.assertIn("fc.bias holds numbers that are not finite", message)


class CommandLine(Case):
    def test_wrong_usage(self):
        path = self.path("in", pth(tiny()))
        good = [path, "-o", self.output]
        for arguments in ([], [path], good[1:], [*good, "--inspect"], [*good, "x"], [*good, "--nothing"], [*good, "--crop", "0"],
                          [*good, "--crop", "16385"], [*good, "--crop", "1.5"], [*good, "--crop", "1x2x3"],
                          [*good, "--crop", "x"],
                          [*good, "--stride-at", "2"], [*good, "--output-stride", "4"], [*good, "--head", "none"],
                          [*good, "--channels", "hsv"], [*good, "--resize=-1"],
                          [*good, "--resize", "9" * 5000], [*good, "--interpolation", "nearest"],
                          [*good, "--lab", "x"], [*good, "--arch", "vgg"], [*good, "--mean", "1,2"],
                          [*good, "--mean", "1,2,nan"], [*good, "--mean", "1,2,1e39"],
                          [*good, "--mean", ""], [*good, "--std", "1,1,0"], [*good, "--std", "1,1,1e-60"],
                          [*good, "--std", "1,1,-1"], [*good, "--std", "1,1,1,1"], [*good, "--mean", "a\nb"]):
            self.assertEqual(self.run_main(*arguments)[0], 2, arguments)
        self.assertEqual(os.listdir(self.folder), ["in"])


if __name__ == "__main__":
    unittest.main()
