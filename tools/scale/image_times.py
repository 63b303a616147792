#!/usr/bin/env python3
"""How long each photograph takes on one core, and what of it: image_times.py MODEL QUANTILES.tsv FOLDER...

Prints lines of measure.sh's table for each folder: bytes, and the mean times of decoding and of resizing with all that comes
between it and the network. Writes the quantiles of the whole time of an image, over all folders, to QUANTILES.tsv. Decoding
is what preparing an image from its bytes takes longer than from pixels of its size.
"""
import functools
import pathlib
import struct
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import resnet  # noqa: E402

QUANTILES = 200
START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_size(data):
    """Height and width, from the frame's header."""
    at = 2
    while data[at + 1] not in START_OF_FRAME:
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return struct.unpack_from(">HH", data, at + 5)


def milliseconds(action, image):
    """The better of two, since others use the machine too."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        action(image)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def times_of(session, data):
    """To answer, to decode and resize, to resize."""
    pixels = np.zeros((*jpeg_size(data), 3), np.uint8)
    prepare = functools.partial(session._set, 0)  # what the session does before it runs the network
    return milliseconds(session.logits, data), milliseconds(prepare, data), milliseconds(prepare, pixels)


def measure_folder(session, folder):
    """Print the folder's figures and return the whole time of each image."""
    files = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    whole, prepared, resized = np.array([times_of(session, data) for data in files]).T
    figures = {"images": len(files), "bytes": np.mean([len(data) for data in files]),
               "decode_ms": np.mean(prepared - resized), "resize_ms": np.mean(resized)}
    for figure, value in figures.items():
        print(f"{folder.name}\t{figure}\t{value:.6g}")
    return whole


def main():
    model, output, *folders = sys.argv[1:]
    session = resnet.Model(model, threads=1).session(threads=1)
    times = np.concatenate([measure_folder(session, pathlib.Path(folder)) for folder in folders])
    shares = np.linspace(0, 1, QUANTILES + 1)
    with open(output, "w", encoding="utf-8") as file:
        file.write("quantile\tms\n")
        for share, value in zip(shares, np.quantile(times, shares)):
            file.write(f"{share:.3f}\t{value:.3f}\n")


if __name__ == "__main__":
    main()
