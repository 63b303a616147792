#!/usr/bin/env python3
"""Breaks the model file's reader and the checks of images in small ways, one at a time, and sees whether a test notices.

A mutant is one change: another comparison, && for ||, + for -, a number that is one more or less, a condition negated, a
statement left out, two arguments swapped. What does not compile with the project's warnings as errors, or compiles to
the same code as the original or as another mutant, does not count; nor are the words of errors changed. Only the one
object is compiled, and linked into the tests that guard the file: those of build, as tools/test.sh makes it, and, where
they notice nothing, those of build-mutate, with the address and undefined-behaviour sanitizers. A test that fails, or
takes four times as long as usual, kills the mutant.

The answers stay in build-mutate: an interrupted call goes on when it is called again, and a call after a new test asks
the survivors alone. Exits with 1 where fewer than --least percent were killed.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLAIN, SANITIZED = ROOT / "build", ROOT / "build-mutate"
WORKERS = 2
MODEL_TESTS = "model_rules", "fuzz_model", "model_file", "model"
IMAGE_TESTS = "guards", "fuzz_guards", "fuzz_image", "image"
SLOW = "image", "model_file", "model"  # and see little more with sanitizers
# What is mutated, and what guards it. Of weights.c, the functions that check what comes from a file.
GUARDED = {
    "src/model_file.c": MODEL_TESTS,
    "src/weights.c": MODEL_TESTS,
    "src/image.c": IMAGE_TESTS,
    "src/image_jpeg.c": IMAGE_TESTS,
    "src/image_png.c": IMAGE_TESTS,
    "src/image_bmp.c": IMAGE_TESTS,
}
CHECKS = "check_sums", "vectors_of", "read_vectors", "first_failure"

BINARY = {"<": ["<="], "<=": ["<"], ">": [">="], ">=": [">"], "==": ["!="], "!=": ["=="], "&&": ["||"], "||": ["&&"],
          "+": ["-"], "-": ["+"], "+=": ["-="], "-=": ["+="]}
REFUSALS = "fail", "fail_memory", "fail_file", "refuse", "truncated", "refuse_marker"


# ---- Mutants ----

class Mutant:
    def __init__(self, file, text, start, end, new):
        self.file, self.line = file, text.count("\n", 0, start) + 1
        self.text = text[:start] + new + text[end:]
        self.key = hashlib.sha256((file + self.text).encode()).hexdigest()[:16]
        lines = text[text.rfind("\n", 0, start) + 1:text.find("\n", end)], new
        column = start - text.rfind("\n", 0, start) - 1
        words = " ".join(text[start:end].split())
        self.change = f"{' '.join(lines[0].split())}  [column {column + 1}: {words} -> {new or 'nothing'}]"


def blanked(text):
    """The text with spaces for comments, strings, characters and directives but the numbers of #define."""
    def spaces(match):
        return re.sub(r"[^\n]", " ", match.group())
    text = re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\])+'", spaces, text, flags=re.S)
    return re.sub(r"^#(define [a-zA-Z]\w*(\([^)]*\))?|(?!define [a-zA-Z])[^\n]*)", spaces, text, flags=re.M)


def closing(code, at):
    """The place of the parenthesis that closes the one at `at`."""
    depth = 0
    while True:
        depth += (code[at] == "(") - (code[at] == ")")
        if not depth:
            return at
        at += 1


def without_words(code):
    """Blank what only makes the words of an error: its call's arguments."""
    for match in list(re.finditer(rf"\b({'|'.join(REFUSALS)})\(", code)):
        end = closing(code, match.end() - 1)
        code = code[:match.end()] + re.sub(r"[^\n]", " ", code[match.end():end]) + code[end:]
    return code


def changes(code, text):
    """All (start, end, new) of a file, in its order; `code` is what may be changed of `text`."""
    for match in re.finditer(r"(?<= )(<=|>=|==|!=|<|>|&&|\|\||\+=|-=|\+|-)(?=\s)", code):
        for new in BINARY[match.group()]:
            yield *match.span(), new
    for match in re.finditer(r"(?<![\w.])(0[xX][0-9a-fA-F]+|\d+)(?=[uUlL]*(?![\w.]))", code):
        for number in int(match.group(), 0) + 1, int(match.group(), 0) - 1:
            yield *match.span(), str(number) if number >= 0 else "(-1)"
    for match in re.finditer(r"\b(if|while) \(", code):
        end = closing(code, match.end() - 1)
        yield match.end(), end, f"!({text[match.end():end]})"
    for match in re.finditer(r"(?:return|[\w>\])] =)\s+([^=?;{}][^?;{}]*?)\s+\?", code):
        yield *match.span(1), f"!({text[slice(*match.span(1))]})"
    for match in re.finditer(r"(?<=[;{})])\s*\n\s+(?!\s|else|do\b|for\b|if\b|while\b|switch\b|case\b|default\b|static\b|#)"
                             r"([^;{}]+;)", code):
        if not re.match(r"(const )?(struct |unsigned )?\w+ \**\w+(\[\w*\])*( =|;|,)", match.group(1)):
            yield *match.span(1), ";"
    for match in re.finditer(r"\b(?!memcmp)\w+\(((?:\w|->|\.|\[\w+\])+), ((?:\w|->|\.|\[\w+\])+)(?=[,)])", code):
        yield *match.span(1)[:1], match.end(2), f"{match.group(2)}, {match.group(1)}"


def function(code, name):
    start = re.search(rf"^[^\n;]*\b{name}\([^;]*?\) \{{\n", code, re.M).start()
    return start, code.index("\n}\n", start)


def mutants_of(file):
    text = (ROOT / file).read_text()
    code = without_words(blanked(text))
    places = [function(code, name) for name in CHECKS] if file == "src/weights.c" else [(0, len(code))]
    for start, end, new in changes(code, text):
        if any(first <= start < last for first, last in places):
            yield Mutant(file, text, start, end, new)


# ---- Build and run ----

def program_of(name):
    return name.replace("fuzz_", "replay_") if name.startswith("fuzz_") else "test_" + name


def passes(command, cpu=None, **options):
    """Whether it ends well, in so many seconds of a CPU; a test is ended where its first part fails."""
    def limit():
        if cpu:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=limit,
                          env={**os.environ, "RESNET_TEST_QUICK": "1"}, **options) as running:
        if any(b"[  FAILED  ]" in line for line in running.stderr):
            running.kill()
            return False
    return running.returncode == 0


class Notes:
    """Lines of key and value that outlive this call."""

    def __init__(self, name):
        self.path = SANITIZED / name
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.values = dict(line.split("\t")[:2] for line in lines)

    def add(self, key, value, *more):
        self.values[key] = value
        with self.path.open("a") as file:
            print(key, value, *more, sep="\t", file=file)


class Build:
    """A build folder: its tests, what each usually takes of a CPU, and how an object is compiled."""

    def __init__(self, folder, names, *options):
        self.folder, self.names = folder, names
        subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-DRESNET_WERROR=ON", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *options],
                       stdout=subprocess.DEVNULL, check=True)
        targets = [program_of(name) for name in names] + ["fuzz_seeds"]
        subprocess.run(["cmake", "--build", folder, f"-j{WORKERS}", "--target", *targets], stdout=subprocess.DEVNULL, check=True)
        listed = subprocess.run(["ctest", "--test-dir", folder, "--show-only=json-v1"], capture_output=True, check=True)
        self.commands = {test["name"]: test["command"] for test in json.loads(listed.stdout)["tests"] if "command" in test}
        self.compile = {pathlib.Path(entry["file"]).relative_to(ROOT).as_posix(): shlex.split(entry["command"])
                        for entry in json.loads((folder / "compile_commands.json").read_text())
                        if "resnet_objects.dir" in entry["command"]}
        passes(self.commands["fuzz_seeds"])
        self.usual = Notes(f"seconds-{folder.name}.tsv")
        for name in names:
            if name not in self.usual.values:
                self.usual.add(name, f"{self.measure(name):.1f}")

    def measure(self, name):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        if not passes(self.commands[name]):
            sys.exit(f"mutate.py: {name} fails without a mutant in {self.folder.name}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def object(self, file, text, place):
        """Compile a file of this text; the object's bytes, or None where it is no C."""
        source, made = place.with_suffix(".c"), place.with_suffix(".o")
        source.write_text(text)
        command = self.compile[file]
        good = passes([*command[:command.index("-o")], "-O1", "-o", made, "-c", source], cwd=self.folder)
        source.unlink()
        return made.read_bytes() if good else None

    def killer(self, mutant, place):
        """The name of the test that fails with the object there, or None."""
        for name in GUARDED[mutant.file]:
            if name in self.names and not self.survives(name, mutant.file, place):
                return name
        return None

    def survives(self, name, file, place):
        cwd = self.folder / "tests" / ("fuzz" if name.startswith("fuzz_") else "")
        link = shlex.split((cwd / f"CMakeFiles/{program_of(name)}.dir/link.txt").read_text())
        link[link.index("-o") + 1] = program = place.with_suffix(".test")
        link = [place.with_suffix(".o") if str(word).endswith(f"resnet_objects.dir/{file}.o") else word for word in link]
        if not passes(link, cwd=cwd):
            sys.exit(f"mutate.py: {name} does not link")
        good = passes([program, *self.commands[name][1:]], cpu=int(4 * float(self.usual.values[name])) + 2, cwd=cwd)
        program.unlink()
        return good


class Run:
    def __init__(self, options):
        self.options = options
        names = list(dict.fromkeys(name for file in options.files for name in GUARDED[file]))
        SANITIZED.mkdir(exist_ok=True)
        self.plain = Build(PLAIN, names)
        self.sanitized = Build(SANITIZED, [name for name in names if name not in SLOW], "-DRESNET_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=Debug",
                               "-DCMAKE_C_FLAGS_DEBUG=-O1 -DNDEBUG")
        self.codes, self.killers = Notes("codes.tsv"), Notes("killers.tsv")
        (SANITIZED / "mutants").mkdir(exist_ok=True)

    def place(self, mutant, suffix=""):
        return SANITIZED / "mutants" / (mutant.key + suffix)

    def code(self, mutant):
        """What its code is; "-" where it is no C."""
        if mutant.key not in self.codes.values:
            made = self.plain.object(mutant.file, mutant.text, self.place(mutant))
            self.codes.add(mutant.key, hashlib.sha256(made).hexdigest() if made else "-")
        return self.codes.values[mutant.key]

    def chosen(self):
        """As many mutants as asked, drawn from all of them, each of which makes other code."""
        seen = {"-"} | {self.code(Mutant(file, (ROOT / file).read_text(), 0, 0, "")) for file in self.options.files}
        every = [mutant for file in self.options.files for mutant in mutants_of(file)]
        every.sort(key=lambda mutant: hashlib.sha256(f"{self.options.seed} {mutant.key}".encode()).digest())
        count = 0
        for mutant in every:
            if count == self.options.mutants:
                return
            if self.code(mutant) not in seen:
                seen.add(self.code(mutant))
                count += 1
                yield mutant

    def ask(self, mutant):
        if mutant.key in self.killers.values:
            return self.killers.values[mutant.key]
        place, answer = self.place(mutant), None
        for build in self.plain, self.sanitized:
            if build.object(mutant.file, mutant.text, place):
                answer = answer or build.killer(mutant, place)
            place.with_suffix(".o").unlink(missing_ok=True)
            if answer:
                self.killers.add(mutant.key, answer, f"{mutant.file}:{mutant.line}", mutant.change)
                break
        return answer

    def answers(self):
        """(mutant, the test that killed it or None) for each."""
        room = threading.Semaphore(2 * WORKERS) # so that compiling for the choice does not run ahead

        def one(mutant):
            try:
                return mutant, self.ask(mutant)
            finally:
                room.release()
        waiting = []
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for mutant in self.chosen():
                room.acquire()
                waiting.append(pool.submit(one, mutant))
                while waiting and waiting[0].done():
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10**6, help="this many, or all")
    parser.add_argument("--seed", type=int, default=1, help="which of them")
    parser.add_argument("--files", nargs="+", default=list(GUARDED), choices=list(GUARDED), metavar="FILE")
    parser.add_argument("--least", type=float, default=95, help="percent that must be killed")
    options = parser.parse_args()
    os.nice(19)
    started, killed, total = time.monotonic(), 0, 0
    for mutant, answer in Run(options).answers():
        total += 1
        killed += bool(answer)
        if not answer:
            print(f"{mutant.file}:{mutant.line}: {mutant.change}", flush=True)
    share = 100 * killed / max(total, 1)
    print(f"{killed} of {total} mutants killed: {share:.1f} %, in {time.monotonic() - started:.0f} s")
    return share < options.least


if __name__ == "__main__":
    sys.exit(main())
