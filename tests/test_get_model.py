#!/usr/bin/env python3
"""Tests tools/get_model.sh against a server of our own: what it downloads, checks and converts, and how it fails."""
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import threading
import unittest

from convert_support import Case, f32, pth, remove, tiny, u32

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "get_model.sh"
TOOLS = ("sh", "cut", "sed", "mktemp", "rm", "dirname", "sha256sum",
         "python3")  # what the script runs besides curl or wget


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class GetModel(Case):
    def setUp(self):
        super().setUp()
        self.site = pathlib.Path(self.folder) / "site"
        self.site.mkdir()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                 lambda *arguments: Quiet(*arguments, directory=self.site))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.address = f"http://127.0.0.1:{server.server_port}"
        self.checkpoint = pth(tiny())

    def publish(self, data, name=None):
        """Put a file on the server under a name with its hash; returns the name."""
        name = name or f"tiny-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        (self.site / name).write_bytes(data)
        return name

    def run_script(self, *arguments, tools=None):
        environment = {**os.environ, "TMPDIR": self.folder, "no_proxy": "*"}
        if tools:
            environment["PATH"] = str(tools)
        return subprocess.run(["/bin/sh", str(SCRIPT), *arguments], capture_output=True, text=True, env=environment,
                              cwd=self.folder, check=False)

    def fails(self, status, reason, *arguments, **options):
        done = self.run_script(*arguments, **options)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(reason, done.stderr)
        self.assertEqual([name for name in os.listdir(self.folder) if name not in ("site", "out.resnet", "bin", "in")],
                         [])

    def tools(self, *downloaders):
        """A folder of links to the tools that the script may use."""
        folder = pathlib.Path(self.folder) / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in (*TOOLS, *downloaders):
            if found := shutil.which(name):
                (folder / name).symlink_to(found)
        return folder

    def test_downloads_and_converts(self):
        name = self.publish(self.checkpoint)
        done = self.run_script("resnet50-v2", "-o", "out.resnet", "--from", self.address, "--file", name)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("out.resnet: ", done.stdout)
        with open(self.output, "rb") as file:
            data = file.read()
        self.assertEqual((u32(data, 92), u32(data, 76), f32(data, 128, 1)),
                         (232, 224, f32(self.converted(self.checkpoint), 128, 1)))
        self.assertEqual(sorted(os.listdir(self.folder)), ["in", "out.resnet", "site"])

    def test_each_downloader(self):
        name = self.publish(self.checkpoint)
        for downloader in ("curl", "wget"):
            if shutil.which(downloader) is None:
                continue
            remove(self.output)
            done = self.run_script("mine", "-o", "out.resnet", "--from", self.address, "--file", name,
                                   tools=self.tools(downloader))
            self.assertEqual((done.returncode, done.stderr), (0, ""), downloader)
            self.assertTrue(os.path.exists(self.output))
            self.fails(4, "missing-00000000.pth: cannot be downloaded", "mine", "--from", self.address, "--file",
                       "missing-00000000.pth", tools=self.tools(downloader))
        self.fails(4, "neither curl nor wget", "mine", "--from", self.address, "--file", name, tools=self.tools())

    def test_default_name(self):
        name = self.publish(self.checkpoint)
        self.assertEqual(self.run_script("mine", "--from", self.address, "--file", name).returncode, 0)
        self.assertTrue(os.path.exists(self.path("mine.resnet")))

    def test_another_file_under_the_name(self):
        self.path("out.resnet", b"old")
        name = "tiny-" + hashlib.sha256(self.checkpoint).hexdigest()[:8] + ".pth"
        for data in (self.checkpoint + b"\0", self.checkpoint[:-1], b""):
            self.publish(data, name)
            self.fails(4, "its SHA-256 does not begin with", "mine", "-o", "out.resnet", "--from", self.address, "--file",
                       name)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_file_that_is_no_checkpoint(self):
        self.path("out.resnet", b"old")
        name = self.publish(b"hello")
        self.fails(3, "not a checkpoint", "mine", "-o", "out.resnet", "--from", self.address, "--file", name)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), b"old")

    def test_no_server(self):
        self.fails(4, "cannot be downloaded", "resnet18", "-o", "out.resnet", "--from", "http://127.0.0.1:1")

    def test_usage(self):
        for arguments, reason in (((), "which network?"), (("resnet5",), "no network resnet5"),
                                  (("a", "b"), "two names"),
                                  (("--what",), "no option --what"), (("resnet18", "-o"), "-o wants a value"),
                                  ((".*",), "no network .*"),
                                  (("mine", "--file", "../x-00000000.pth"), "expected NAME-HASH.pth"),
                                  (("mine", "--file", "x-0000000.pth"), "expected NAME-HASH.pth")):
            self.fails(2, reason, *arguments)

    def test_help_lists_the_names(self):
        done = self.run_script("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in ("resnet18", "resnet50-v2", "wide_resnet101_2-v2", "usage: sh tools/get_model.sh NAME"):
            self.assertIn(name, done.stdout)

    def test_table(self):
        rows = re.findall(r"^(\S+) +(\S+-[0-9a-f]{8}\.pth) +(256|232)$", SCRIPT.read_text(), re.MULTILINE)
        self.assertEqual(len(rows), 17)
        self.assertEqual(len({file for _, file, _ in rows}), 17)
        for name, file, resize in rows:
            self.assertEqual(file.split("-")[0], name.removesuffix("-v2"))
            self.assertEqual(resize == "232", name.endswith("-v2") or name == "resnext101_64x4d")


if __name__ == "__main__":
    unittest.main()
