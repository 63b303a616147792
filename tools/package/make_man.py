#!/usr/bin/env python3
"""Write the man pages resnet.1, of what the program's --help says, and libresnet.3, of what resnet.h says.

    make_man.py PROGRAM            write both, beside this file
    make_man.py PROGRAM --check    exit with 1 where one of them says something else
"""
import argparse
import pathlib
import re
import subprocess
import sys
import textwrap

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE.parent.parent / "include/resnet.h"

PROGRAM_ABOUT = """\
resnet classifies photographs with a residual network (ResNet) on the CPU, says how often a network is right and how
fast it runs, and makes smaller files of it. Answers go to the standard output, everything else to the standard error.

"--name=value" is the same as "--name value"; "--" ends the options.
"""
PROGRAM_END = r"""
.SH EXIT STATUS
.TP
.B 0
All done.
.TP
.B 1
Some inputs failed, and the rest is done; of diff: a layer departs.
.TP
.B 2
The command was called wrongly.
.TP
.B 3
The model is bad, or needs what this version or this CPU has not got.
.TP
.B 4
A file, the memory or a thread was refused.
.SH ENVIRONMENT
.TP
.B NO_COLOR
Not empty: no colour on a terminal.
.SH FILES
.TP
.I ../share/resnet/default.resnet
as seen from the program: the model that knows ten things, used where no other is named.
.SH EXAMPLES
.EX
resnet classify photo.jpg
find . \-name '*.jpg' | resnet classify \-\-json \-\-files\-from \-
resnet classify \-\-model resnet50.resnet \-\-top 1 photo.jpg
resnet quantize \-\-model resnet50.resnet \-\-calibrate photos \-o resnet50\-int8.resnet
.EE
.SH SEE ALSO
.BR libresnet (3)
"""
LIBRARY_START = r"""
.SH NAME
libresnet \- ResNet inference on a CPU
.SH SYNOPSIS
.nf
.B #include <resnet.h>
.PP
.B cc program.c $(pkg\-config \-\-cflags \-\-libs resnet)
.fi
"""
LIBRARY_END = r"""
.SH SEE ALSO
.BR resnet (1)
"""


def escape(text):
    """Text as troff prints it unchanged."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in lines)


def paragraphs(text):
    return "".join(".PP\n" + escape(part) + "\n" for part in re.split(r"\n\s*\n", text.strip()))


def example(text):
    return ".PP\n.EX\n" + escape(text) + "\n.EE\n"


# ---- resnet(1) ----

def ask(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def option_item(line):
    """A line of --help, "  --top N     classes to show (5)", as an item of a list."""
    name, argument, text = re.fullmatch(r"  (--[a-z0-9-]+)(?: (\S+))?  +(.*)", line).groups()
    value = f" \\fI{argument}\\fR" if argument else ""
    return f".TP\n\\fB{escape(name)}\\fR{value}\n{escape(text)}\n"


def command_section(program, command):
    usage, summary, options, *notes = ask(program, command, "--help").rstrip("\n").split("\n\n")
    result = f'.SS "{escape(usage.removeprefix("usage: "))}"\n{escape(summary)}\n'
    result += "".join(option_item(line) for line in options.splitlines() if line.split()[0] != "--help")
    return result + "".join(paragraphs(note) for note in notes)


def program_page(program):
    name, version = ask(program, "--version").split()[:2]
    commands = re.findall(r"^  ([a-z]+) ", ask(program, "--help"), re.M)
    return (f'.TH RESNET 1 "" "{name} {version}"\n'
            ".SH NAME\nresnet \\- say what is on photographs\n"
            ".SH SYNOPSIS\n.B resnet\n.I COMMAND\n[\\fIOPTION\\fR]...\n.br\n.B resnet help\n[\\fICOMMAND\\fR]\n"
            ".br\n.B resnet \\-\\-version\n"
            ".SH DESCRIPTION\n" + paragraphs(PROGRAM_ABOUT) +
            ".SH COMMANDS\n" + "".join(command_section(program, command) for command in commands) +
            PROGRAM_END.lstrip())


# ---- libresnet(3) ----

def comment_text(comment):
    """What a comment of C says, without its marks and line starts."""
    return re.sub(r"^ ?\*? ?", "", comment.strip()[2:-2].strip(), flags=re.M)


def chunk_text(chunk):
    """A part of the header between blank lines: a comment, a declaration, or a comment and the declaration below it."""
    comment = re.match(r"/\*.*?\*/", chunk, re.S)
    text = paragraphs(comment_text(comment.group())) if comment else ""
    code = chunk[comment.end():].strip("\n") if comment else chunk
    return (example(code.replace("RESNET_API ", "")) if code else "") + text


def library_page(version):
    header = HEADER.read_text(encoding="utf-8")
    about = re.match(r"/\*.*?\*/", header, re.S).group()
    rules = comment_text(about).split("\n\n", 1)[1]
    code, rules = re.match(r"(?: .*\n)+", rules).group(), rules.split("\n\n", 1)[1]
    body = header[header.index('extern "C" {\n#endif\n') + len('extern "C" {\n#endif\n'):header.rindex("#ifdef __cplusplus")]
    page = f'.TH LIBRESNET 3 "" "resnet {version}"\n' + LIBRARY_START.lstrip() + ".SH DESCRIPTION\n"
    page += example(textwrap.dedent(code).rstrip()) + paragraphs(re.sub(r"^- ", "\n", rules, flags=re.M))
    for chunk in body.strip().split("\n\n"):
        title = re.fullmatch(r"/\* ---- (.*) ---- \*/", chunk)
        page += f".SH {title.group(1).upper()}\n" if title else chunk_text(chunk)
    return page + LIBRARY_END.lstrip()


def main():
    parser = argparse.ArgumentParser(description="Write the man pages resnet.1 and libresnet.3.")
    parser.add_argument("program")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    version = ask(arguments.program, "--version").split()[1]
    pages = {"resnet.1": program_page(arguments.program), "libresnet.3": library_page(version)}
    for name, page in pages.items():
        page = re.sub(r"^(\.SH .*\n)\.PP\n", r"\1", page, flags=re.M)  # a section begins a paragraph by itself
        if not arguments.check:
            (HERE / name).write_text(page, encoding="utf-8")
        elif (HERE / name).read_text(encoding="utf-8") != page:
            sys.exit(f"{name} is not what the program or the header says: run tools/package/make_man.py PROGRAM")


if __name__ == "__main__":
    main()
