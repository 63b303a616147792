#!/usr/bin/env python3
"""What the recipes of this folder have in common: a list of images, a worker to kill, and the check of the answers.

    recipe.py list FOLDER COUNT [IMAGE...]  make COUNT links in FOLDER to these images (the samples, by turns), one of them
                                            to a file that is no image; print the path of their list, FOLDER/list
    recipe.py catch COUNT PART...           stop the process that writes each PART when it has COUNT records; print the ids
    recipe.py check LIST MODEL PART...      do the parts hold every image of LIST exactly once, as one process answers it?
    recipe.py ports COUNT                   print TCP ports that are free

The program is the one that RESNET_PROGRAM names, or that of the build.
"""
import collections
import contextlib
import glob
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = os.environ.get("RESNET_PROGRAM", str(ROOT / "build/resnet"))
MODEL = ROOT / "models/default.resnet"
PATIENCE = 300  # seconds for a worker to come as far as it is to be caught


def make_list(folder, count, images=()):
    """FOLDER/list: the paths of `count` links, the middle one of which leads to a file that no decoder takes."""
    folder = pathlib.Path(folder).resolve()
    images = [pathlib.Path(image).resolve() for image in images] or sorted((ROOT / "models/samples").glob("*.png"))
    broken = folder / "broken"
    (folder / "images").mkdir(parents=True)
    broken.write_text("no image\n")
    links = [folder / "images" / f"{i:06}.png" for i in range(int(count))]
    for i, link in enumerate(links):
        link.symlink_to(broken if i == len(links) // 2 else images[i % len(images)])
    (folder / "list").write_text("".join(f"{link}\n" for link in links))
    return folder / "list"


def read_list(file):
    return pathlib.Path(file).read_text().splitlines()


# ---- A worker to kill ----

def count_records(part):
    try:
        return pathlib.Path(part).read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def find_writer(part):
    """The id of a process that has the file open; None where there is none."""
    for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if os.path.samefile(descriptor, part):
                return int(descriptor.split("/")[2])
    return None


def advance(process, seconds):
    """Let a stopped process run for so long; False where it has ended."""
    try:
        os.kill(process, signal.SIGCONT)
        time.sleep(seconds)
        os.kill(process, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    return True


def catch(count, *parts):
    """Stop the process that writes each of `parts` once that has `count` records, and return their ids."""
    writers, end = {}, time.monotonic() + PATIENCE
    while len(writers) < len(parts) and time.monotonic() < end:
        for part in parts:
            if part not in writers and os.path.exists(part) and (process := find_writer(part)):
                os.kill(process, signal.SIGSTOP)  # at once: a small shard would be done before it is looked at again
                writers[part] = process
    for part, process in writers.items():
        step = 0.002
        while count_records(part) < int(count):
            if time.monotonic() > end or not advance(process, step):
                sys.exit(f"{part}: its process was not caught at {count} records")
            step = min(1.3 * step, 0.04)  # where others have the cores, a short step passes without it
    if len(writers) < len(parts):
        sys.exit(f"nobody has written all of {' '.join(parts)} in {PATIENCE} seconds")
    return [writers[part] for part in parts]


# ---- The check ----

def read_records(lines):
    """{image: its records}"""
    records = collections.defaultdict(list)
    for line in lines:
        record = json.loads(line)
        records[record["file"]].append(record)
    return records


def answer_alone(file, model):
    """The records of one process that does the whole list."""
    result = subprocess.run([PROGRAM, "classify", "--model", model, "--files-from", file, "--json"], check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if result.returncode > 1:  # 1: some images are broken, of which there are records too
        sys.exit(f"{PROGRAM} ended with {result.returncode}")
    return read_records(result.stdout.splitlines())


def check(file, model, *parts):
    """Print what is amiss and return False, or say that all is well and return True."""
    paths, want = read_list(file), answer_alone(file, model)
    got = read_records(line for part in parts for line in pathlib.Path(part).read_text().splitlines())
    once = sum(len(got[path]) == 1 for path in paths)
    equal = sum(got[path] == want[path] for path in paths)
    print(f"{once} of {len(paths)} images answered exactly once, {equal} as by one process; {len(got) - len(paths)} others")
    return once == equal == len(paths) == len(got)


# ---- Ports ----

def free_ports(count):
    with contextlib.ExitStack() as stack:  # all are held until the last is found, or one would be found twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(int(count))]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main():
    command, *arguments = sys.argv[1:] or ["help"]
    if command == "list" and len(arguments) >= 2:
        print(make_list(arguments[0], arguments[1], arguments[2:]))
    elif command == "catch" and len(arguments) >= 2:
        print(*catch(*arguments))
    elif command == "check" and len(arguments) >= 3:
        sys.exit(not check(*arguments))
    elif command == "ports" and len(arguments) == 1:
        print(*free_ports(arguments[0]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
