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
PROGRAM = os.environ.get("RESNET_PROGRAM")
CC = shlex.split(os.environ.get("CC") or "cc")
CXX = shlex.split(os.environ.get("CXX") or "c++")
SANITIZERS = os.environ.get("RESNET_SANITIZE", "")  # that the library was built with
FLAGS = [f"-fsanitize={SANITIZERS}"] if SANITIZERS else []
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", str(ROOT / "include")]

# All that the library may ask of the system, itself or through stb_image's header: memory, files that are read, threads,
# the clock, CPUs, mathematics and strings; nothing that ends the process, prints, or looks at the environment.
ALLOWED = set("""
    free madvise posix_memalign
    close fstat getpid open pread read syscall
    pthread_cond_broadcast pthread_cond_destroy pthread_cond_init pthread_cond_signal pthread_cond_wait pthread_create
    pthread_join pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_unlock pthread_sigmask
    sigfillset
    __sched_cpucount clock_gettime getauxval __getauxval sched_getaffinity sysconf
    ceil exp expf fmax fmaxf fmin fminf log log1p pow rint rintf round roundf sqrt sqrtf
    bcmp memchr memcmp memcpy memmove memset snprintf strchr strcmp strcpy strcspn strerror strlen strncmp strnlen strrchr
    strspn strstr vsnprintf __isoc99_sscanf __isoc23_sscanf
    __errno_location __tls_get_addr __stack_chk_fail __cxa_finalize __gmon_start__
    _ITM_deregisterTMCloneTable _ITM_registerTMCloneTable
""".split())

# With libjpeg-turbo: its decoder, and the way back from its errors.
TURBO = os.environ.get("RESNET_JPEG") == "turbo"
if TURBO:
    ALLOWED |= set("""
        jpeg_CreateDecompress jpeg_destroy_decompress jpeg_mem_src jpeg_read_header jpeg_read_scanlines
        jpeg_start_decompress jpeg_std_error _setjmp longjmp __longjmp_chk
    """.split())
LIBRARIES = ["-lm", "-lpthread", *["-ljpeg"] * TURBO]

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


    def test_says_something_of_each_function_and_type(self):
        lines = (ROOT / "include/resnet.h").read_text().splitlines()
        declarations = [i for i, line in enumerate(lines) if re.match(r"RESNET_API |typedef ", line)]
        self.assertGreater(len(declarations), 40)
        self.assertEqual([lines[i] for i in declarations if not lines[i - 1].endswith("*/")], [])

    @unittest.skipUnless(shutil.which("doxygen"), "no doxygen")
    def test_doxygen_makes_a_manual_of_it_without_a_warning(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = (ROOT / "tools/package/Doxyfile").read_text() + f"OUTPUT_DIRECTORY = {folder}\n"
            result = run("doxygen", "-", input=settings, cwd=ROOT)
            self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "", ""))
            self.assertIn("Allocates nothing", pathlib.Path(folder, "manual/resnet_8h.html").read_text())


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
        self.assertEqual({name for name in imported if re.sub(r"^__(\w+)_chk$", r"\1", name) not in ALLOWED}, set())

    def test_needs_libc_libm_pthreads_and_the_chosen_libjpeg_only(self):
        needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", BUILD / "libresnet.so").stdout)
        self.assertIn("libc.so.6", needed)
        self.assertEqual(any(name.startswith("libjpeg.so.") for name in needed), TURBO)
        self.assertEqual([name for name in needed
                          if not re.match(r"(libc|libm|libpthread|libjpeg|ld-linux-[\w-]+)\.so\.", name)],
                         [])  # ld-linux is libc's own loader; code that has thread-local variables names it

    @unittest.skipIf("clang" in os.environ.get("CC", ""), "GCC's is the one that is kept small")
    def test_stripped_size(self):
        with tempfile.TemporaryDirectory() as folder:
            stripped = pathlib.Path(folder, "libresnet.so")
            self.assertEqual(run("strip", "-o", stripped, BUILD / "libresnet.so").returncode, 0)
            self.assertLess(stripped.stat().st_size, 400_000)

    def test_no_writable_globals(self):
        result = run("objdump", "-t", BUILD / "libresnet.so")
        writable = [line.split()[-1] for line in result.stdout.splitlines()
                    if re.search(r" O \.(data|bss)\s", line) and not RUNTIME.search(line)]
        self.assertEqual(writable, [])


class Abi(unittest.TestCase):
    """Where a program that was linked to the last release asks for this library, by its SONAME, it gets what it knew."""

    def build(self, source, folder):
        """A shared library with its types, and its SONAME."""
        for command in (["cmake", "-S", source, "-B", folder, "-DCMAKE_BUILD_TYPE=Debug", "-DBUILD_TESTING=OFF"],
                        ["cmake", "--build", folder, "--target", "resnet_shared"]):
            done = run(*command)
            self.assertEqual(done.returncode, 0, done.stderr)
        library = f"{folder}/libresnet.so"
        return library, re.search(r"SONAME.*\[(.*)\]", run("readelf", "-d", library).stdout).group(1)

    def test_is_that_of_the_last_release(self):
        tag = run("git", "-C", ROOT, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*").stdout.strip()
        if not tag:
            self.skipTest("there is no release yet")
        if not shutil.which("abidiff"):
            self.skipTest("abidiff is not installed (abigail-tools)")
        with tempfile.TemporaryDirectory() as folder:
            archive = run("git", "-C", ROOT, "archive", "-o", f"{folder}/old.tar", tag)
            self.assertEqual(archive.returncode, 0, archive.stderr)
            shutil.unpack_archive(f"{folder}/old.tar", f"{folder}/old")
            old, old_name = self.build(f"{folder}/old", f"{folder}/old/build")
            new, new_name = self.build(ROOT, f"{folder}/new")
            if old_name != new_name:
                self.skipTest(f"{tag} was {old_name}, and this is {new_name}")
            told = run("abidiff", "--no-added-syms", "--headers-dir1", f"{folder}/old/include",
                       "--headers-dir2", ROOT / "include", old, new)
            self.assertEqual(told.returncode, 0, told.stdout)


class Readme(unittest.TestCase):
    def test_the_c_program_compiles_and_names_the_sample(self):
        program = re.search(r"```c\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
        samples = sorted((ROOT / "models/samples").glob("*.png"))
        with tempfile.TemporaryDirectory() as folder:
            source = pathlib.Path(folder, "program.c")
            source.write_text(program)
            built = run(*CC, *FLAGS, "-std=c99", *STRICT, source, BUILD / "libresnet.a", *LIBRARIES, "-o",
                        f"{folder}/program")
            self.assertEqual((built.returncode, built.stderr), (0, ""))
            result = run(f"{folder}/program", ROOT / "models/default.resnet", samples[0])
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(samples[0].stem.replace("_", " "), result.stdout)

    def test_every_section_that_it_names_exists(self):
        text = (ROOT / "README.md").read_text()
        titles = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        named = set(re.findall(r"\]\(#([^)]+)\)", text))
        self.assertGreater(len(named), 8)
        self.assertEqual(named - anchors, set())

    def test_every_file_that_it_names_exists(self):
        text = (ROOT / "README.md").read_text()
        for name in re.findall(r"\]\(([^)#:]+)\)", text):
            self.assertTrue((ROOT / name).exists(), name)


@unittest.skipUnless(PROGRAM, "no program was built")
class Package(unittest.TestCase):
    def test_man_pages_say_what_the_program_and_the_header_say(self):
        result = run(sys.executable, ROOT / "tools/package/make_man.py", PROGRAM, "--check")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    @unittest.skipUnless(shutil.which("bash"), "no bash")
    def test_completion_for_bash(self):
        script = f"source {ROOT}/tools/package/resnet.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); " \
                 "_resnet \"$1\" \"${@: -1}\" \"${@: -2:1}\"; echo \"${COMPREPLY[@]}\""

        def complete(*words):
            result = run("bash", "-c", script, "bash", PROGRAM, *words, cwd=ROOT / "models")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            return result.stdout.split()

        self.assertEqual(complete("cl"), ["classify"])
        self.assertEqual(complete("help", "ev"), ["eval"])
        self.assertEqual(complete("classify", "--log"), ["--logits"])
        self.assertIn("--threads", complete("classify", "a.png", "--"))
        self.assertIn("avx2", complete("classify", "--isa", ""))
        self.assertEqual(complete("classify", "--isa", "=", "neo"), ["neon"])
        self.assertEqual(complete("info", "def"), ["default.resnet"])
        self.assertEqual(complete("classify", "--model", "def"), ["default.resnet"])
        self.assertEqual(complete("quantize", "-o", "FOR"), ["FORMAT.md"])
        self.assertEqual(complete("classify", "--top", ""), [])

    @unittest.skipUnless(shutil.which("zsh"), "no zsh")
    def test_completion_for_zsh(self):
        # zsh's own functions are stood in for by some that print what they are given.
        script = "_describe() { print -rl -- ${(P)2} }; _arguments() { print -rl -- $@ }; words=(\"$@\"); " \
                 f"CURRENT=$#; source {ROOT}/tools/package/_resnet"

        def complete(*words):
            result = run("zsh", "-f", "-c", script, "zsh", PROGRAM, *words)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            return result.stdout.splitlines()

        self.assertIn("classify:Say what is on images", complete("cl")[0])
        self.assertEqual(complete("help", ""), complete(""))
        options = complete("classify", "--")
        self.assertIn("--json[write JSON]", options)
        self.assertIn("--model=[the model file (without it: the default model)]:FILE:_files", options)
        self.assertIn("--isa=[instruction set]:NAME:(auto reference scalar neon avx2 avx512 amx)", options)
        self.assertIn("*:file:_files", options)


if __name__ == "__main__":
    if not (BUILD / "libresnet.a").exists():
        print(f"skipped: no library in {BUILD}")
        sys.exit(77)
    unittest.main()
