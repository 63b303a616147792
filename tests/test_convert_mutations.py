#!/usr/bin/env python3
"""Damages checkpoints at random: each is converted or refused in one line, quickly and in little memory.

usage: test_convert_mutations.py [--mutations N]   (300 unless told, over all containers)
"""
import os
import random
import resource
import struct
import sys
import time
import unittest

from convert_support import (Case, archive, h5, legacy, onnx, pth, remove, safetensors, shard_index, state_pickle, tiny)

try:
    import h5py  # noqa: F401
except ImportError:
    h5py = None

MUTATIONS = 300
SLOW = 15  # an HDF5 file takes another process, so it gets this much fewer
MAX_SECONDS = 30  # for one file; 5 of a CPU are given to an HDF5 file, the others take less than one
MAX_MEMORY = 512 << 10  # KiB, of this process with NumPy; what is seen is about 100 MiB
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63,
           (1 << 64) - 1)


def mutated(data, source, reach):
    """A copy with one to eight faults in its first `reach` bytes: other bytes, other numbers, parts gone or twice."""
    data = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 8))):
        at, kind = source.randrange(min(reach, len(data))), source.randrange(8)
        if kind < 4:
            data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1 << source.randrange(8),
                                      source.randrange(256)))
        elif kind < 6:
            size = source.choice((2, 4, 8))
            number = struct.pack("<Q", source.choice(NUMBERS))[:size]
            data[at:at + size] = number
        else:
            size = source.randrange(1, 40)
            data[at:at + (size if kind == 6 else 0)] = b"" if kind == 6 else data[at:at + size]
    return bytes(data)


class Mutations(Case):
    def check_all(self, checkpoints, statuses=(0, 3), allowed=()):
        """Each of these exit statuses is seen, and besides only those that are allowed."""
        seen = set()
        for checkpoint in checkpoints:
            started = time.monotonic()
            status, _, message = self.run_main(self.path("in", checkpoint), "-o", self.output)
            self.assertLess(time.monotonic() - started, MAX_SECONDS)
            self.assertIn(status, (*statuses, *allowed), message)
            self.assertEqual(os.path.exists(self.output), status == 0)
            remove(self.output)
            seen.add(status)
        self.assertEqual(seen - set(allowed), set(statuses))
        self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, MAX_MEMORY)

    def damage(self, seed, good, reach=1 << 30, share=7):
        source = random.Random(seed)
        self.check_all(mutated(good, source, reach) for _ in range(max(20, MUTATIONS // share)))

    def test_zip(self):
        self.damage(4, archive(*state_pickle(tiny(blocks=(1,))), checksums=False).bytes())

    def test_pickle(self):
        source = random.Random(5)
        pickle, storages = state_pickle(tiny(blocks=(1,)))
        self.check_all(archive(mutated(pickle, source, 1 << 30), storages).bytes() for _ in range(MUTATIONS // 7))

    def test_legacy(self):
        self.damage(8, legacy(tiny(blocks=(1,))))

    def test_legacy_pickles(self):
        self.damage(9, legacy(tiny(blocks=(1,))), reach=3500)

    def test_safetensors(self):
        self.damage(6, safetensors(tiny(blocks=(1,))), reach=3000)

    def test_index(self):
        arrays = tiny(blocks=(1,))
        self.path("model.safetensors", safetensors(arrays))
        good, source = shard_index({name: "model.safetensors" for name in arrays}), random.Random(10)
        # 4: the file that it names is not there. Nearly every byte of it says something, so few are converted.
        self.check_all((mutated(good, source, 1 << 30) for _ in range(max(60, MUTATIONS // 20))), (3, 4), allowed=(0,))

    def test_onnx(self):
        self.damage(11, onnx(tiny(blocks=(1,))), reach=4000)

    def test_onnx_weights(self):
        self.damage(12, onnx(tiny(blocks=(1,)), renamed=True), share=20)

    @unittest.skipUnless(h5py, "h5py is not installed")
    def test_keras(self):
        self.damage(13, h5(tiny(bottleneck=True, blocks=(1,))), share=SLOW)

    def test_truncations(self):
        for checkpoint in (safetensors(tiny(blocks=(1,))), pth(tiny(blocks=(1,))), legacy(tiny(blocks=(1,))),
                           onnx(tiny(blocks=(1,)))):
            self.check_all((checkpoint[:size] for size in range(0, len(checkpoint), 97)), statuses=(3,))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mutations"]:
        MUTATIONS = int(sys.argv[2])
        del sys.argv[1:3]
    unittest.main()
