#!/usr/bin/env python3
"""CIFAR-10 networks on 1000 test images against PyTorch's logits: convert, classify, quantize.

Needs the data that is not part of this repository (weights, images, expected logits); skipped, by name, where it is
absent. Run by ctest with RESNET_PROGRAM in the environment.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    print("skipped: NumPy is not installed for this Python")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "cifar"
PROGRAM = os.environ.get("RESNET_PROGRAM", str(ROOT / "build" / "resnet"))
NETWORKS = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
INSTRUCTION_SETS = "scalar", "avx2", "avx512", "neon"
CALIBRATION = 256


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, check=False, **options)


def available(isa):
    return run(PROGRAM, "bench", "--arch", "resnet20", "--isa", isa, "--seconds", "0").returncode == 0


def logits_of(model, files, *options):
    result = run(PROGRAM, "classify", "--model", model, "--json", "--logits", "--files-from", "-", *options,
                 input="\n".join(map(str, files)).encode())
    assert result.returncode == 0, result.stderr
    return np.array([json.loads(line)["logits"] for line in result.stdout.splitlines()])


class Cifar(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.files = sorted((DATA / "images").glob("*.png"))
        cls.truth = np.loadtxt(DATA / "test1000_labels.txt", dtype=int)
        assert len(cls.files) == len(cls.truth) == 1000
        cls.models = {}
        for name, checkpoint in NETWORKS.items():
            model = pathlib.Path(cls.folder.name, name + ".resnet")
            converted = run(sys.executable, ROOT / "tools/convert.py", "--arch", name, DATA / checkpoint, "-o", model)
            assert converted.returncode == 0, converted.stderr
            cls.models[name] = model

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_logits(self):
        """The classes of all 1000 are PyTorch's. 1e-4 of the largest logit is the promise; rounding leaves about a tenth of that."""
        here = list(filter(available, INSTRUCTION_SETS))
        self.assertIn("scalar", here)
        for name, model in self.models.items():
            expected = np.load(DATA / f"{name}-logits.npy")
            for isa in here:
                logits = logits_of(model, self.files, "--isa", isa)
                error = (np.abs(logits - expected).max(axis=1) / np.abs(expected).max(axis=1)).max()
                print(f"{name} {isa}: logits within {error:.1e} of the largest", file=sys.stderr)
                self.assertEqual(int((logits.argmax(axis=1) == expected.argmax(axis=1)).sum()), 1000)
                self.assertLess(error, 1e-4, f"{name} {isa}")

    def quantized(self, name, precision, images):
        model = pathlib.Path(self.folder.name, f"{name}-{precision}.resnet")
        source = []
        if precision == "int8":
            listed = pathlib.Path(self.folder.name, "images.txt")
            listed.write_text("\n".join(map(str, images)) + "\n", encoding="utf-8")
            source = ["--calibrate", listed]
        made = run(PROGRAM, "quantize", "--model", self.models[name], "--precision", precision, *source, "-o", model)
        self.assertEqual(made.returncode, 0, made.stderr)
        return model

    def test_smaller_numbers(self):
        """Points lost to f32, and answers that stay the same, over all images, none of which its network was calibrated
        on: each half is answered by the one that was calibrated on images of the other."""
        halves = [(self.files[:500], self.files[500:]), (self.files[500:], self.files[:500])]
        for name, model in self.models.items():
            exact = logits_of(model, self.files).argmax(axis=1)
            for precision, points in ("bf16", 0.4), ("int8", 0.8):
                found = np.concatenate([
                    logits_of(self.quantized(name, precision, others[:CALIBRATION]), asked).argmax(axis=1)
                    for asked, others in halves])
                lost, same = 100 * ((exact == self.truth).mean() - (found == self.truth).mean()), (found == exact).mean()
                print(f"{name} {precision}: {lost:+.1f} points below f32, {100 * same:.1f} % the same", file=sys.stderr)
                self.assertLessEqual(lost, points, f"{name} {precision}")
                self.assertGreaterEqual(same, 0.96, f"{name} {precision}")


if __name__ == "__main__":
    if not DATA.exists():
        print("skipped: no ../shared/data/cifar beside the repository")
        sys.exit(77)
    unittest.main()
