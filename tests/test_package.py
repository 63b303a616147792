#!/usr/bin/env python3
"""What the library looks like from outside: the header alone, the symbols, the README's program.

Run by ctest with RESNET_BUILD (the build folder) and CC, CXX (the compilers) in the environment.
"""
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("RESNET_BUILD", ROOT / "build"))
CC = shlex.split(os.environ.get("CC") or "cc")
CXX = shlex.split(os.environ.get("CXX") or "c++")
SANITIZERS = os.environ.get("RESNET_SANITIZE", "")  # that the library was built with
FLAGS = [f"-fsanitize={SANITIZERS}"] if SANITIZERS else []
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", str(ROOT / "include")]

# The library may not end the process, print, or read the environment, directly or through the headers of stb_image.
FORBIDDEN = {"exit", "_exit", "abort", "atexit", "printf", "fprintf", "puts", "putchar", "perror", "vprintf", "getenv",
             "setenv", "system", "signal", "sigaction", "__assert_fail", "__printf_chk", "__fprintf_chk"}

# Writable objects that the C runtime brings, and the compiler's record of what the CPU has.
RUNTIME = re.compile(r"(completed\.\d+|__dso_handle|__TMC_END__|__cpu_model|__cpu_features2)$")


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def symbols(*options):
    result = run("nm", *options, BUILD / "libresnet.so")
    return [line.split() for line in result.stdout.splitlines()]


class Header(unittest.TestCase):
    def compiles(self, compiler, standard, suffix):
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "alone" + suffix)
            source.write_text("#include <resnet.h>\n")
            result = run(*compiler, standard, *STRICT, "-c", source, "-o", f"{folder}/alone.o")
            self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_alone_as_c99(self):
        self.compiles(CC, "-std=c99", ".c")

    @unittest.skipUnless(shutil.which(CXX[0]), "no C++ compiler")
    def test_alone_as_cxx(self):
        self.compiles(CXX, "-std=c++11", ".cc")


@unittest.skipIf(FLAGS, "sanitizers bring symbols of their own")
class Symbols(unittest.TestCase):
    def test_exports_are_the_headers_functions(self):
        declared = set(re.findall(r"RESNET_API[^;]*?\b(resnet_\w+)\(", (ROOT / "include/resnet.h").read_text()))
        exported = {fields[-1] for fields in symbols("-D", "--defined-only")}
        self.assertGreater(len(declared), 20)
        self.assertEqual(exported, declared)

    def test_imports_nothing_that_ends_prints_or_looks_around(self):
        imported = {fields[-1].split("@")[0] for fields in symbols("-D", "--undefined-only")}
        self.assertIn("memcpy", imported)
        self.assertEqual(imported & FORBIDDEN, set())

    def test_no_writable_globals(self):
        result = run("objdump", "-t", BUILD / "libresnet.so")
        writable = [line.split()[-1] for line in result.stdout.splitlines()
                    if re.search(r" O \.(data|bss)\s", line) and not RUNTIME.search(line)]
        self.assertEqual(writable, [])


class Readme(unittest.TestCase):
    def test_the_c_program_compiles_and_names_the_sample(self):
        program = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
        samples = sorted((ROOT / "models/samples").glob("*.png"))
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "program.c")
            source.write_text(program)
            built = run(*CC, *FLAGS, "-std=c99", *STRICT, source, BUILD / "libresnet.a", "-lm", "-lpthread",
                        "-o", f"{folder}/program")
            self.assertEqual((built.returncode, built.stderr), (0, ""))
            result = run(f"{folder}/program", ROOT / "models/default.resnet", samples[0])
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(samples[0].stem.replace("_", " "), result.stdout)

    def test_every_file_that_it_names_exists(self):
        text = (ROOT / "README.md").read_text()
        for name in re.findall(r"\]\(([^)#:]+)\)", text):
            self.assertTrue((ROOT / name).exists(), name)


if __name__ == "__main__":
    if not (BUILD / "libresnet.a").exists():
        print(f"skipped: no library in {BUILD}")
        sys.exit(77)
    unittest.main()
