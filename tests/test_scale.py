#!/usr/bin/env python3
"""The recipes of tools/scale over a small list, with the workers they kill; its simulation; its page.

Run by ctest with RESNET_PROGRAM and RESNET_BUILD (the build folder) in the environment. A recipe is skipped where its
engine is not installed.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(77)
if os.environ.get("RESNET_SANITIZE"):
    print("skipped: Python was built without this sanitizer, and the engines' patience is for programs as users run them")
    sys.exit(77)

SCALE = pathlib.Path(__file__).resolve().parent.parent / "tools/scale"
sys.path.insert(0, str(SCALE))
import plan  # noqa: E402
import recipe  # noqa: E402
import simulate  # noqa: E402

DEBIAN_PYTHON = "/usr/bin/python3"  # for which Debian's Dask is
IMAGES = 240
ENVIRONMENT = {**os.environ, "RESNET_LIBRARY": os.environ["RESNET_BUILD"] + "/libresnet.so"}


def has_dask():
    return os.path.exists(DEBIAN_PYTHON) and subprocess.run([DEBIAN_PYTHON, "-c", "import distributed, numpy"], check=False,
                                                            stderr=subprocess.DEVNULL).returncode == 0


class Recipes(unittest.TestCase):
    def run_recipe(self, *command):
        """What it says; each checks by itself that all images have the records of a single process, and says how many."""
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run([*command, recipe.make_list(folder, IMAGES)], env=ENVIRONMENT, check=False, text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout, rf"killed at image \d+ of (.*\n)*{IMAGES} of {IMAGES} images answered exactly once, "
                                        f"{IMAGES} as by one process; 0 others\n$")

    @unittest.skipUnless(shutil.which("parallel"), "no GNU parallel")
    def test_parallel(self):
        self.run_recipe("sh", SCALE / "parallel.sh")

    @unittest.skipUnless(all(shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("slurmctld", "slurmd", "munged")),
                         "no Slurm")
    def test_slurm(self):
        self.run_recipe("sh", SCALE / "slurm.sh")

    @unittest.skipUnless(has_dask(), "no Dask")
    def test_dask(self):
        self.run_recipe(DEBIAN_PYTHON, SCALE / "dask_recipe.py")


class Check(unittest.TestCase):
    """What the recipes rely on to find a mistake."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.list = recipe.make_list(self.folder, 6)
        subprocess.run([recipe.PROGRAM, "classify", "--files-from", self.list, "--json", "--resume", self.folder / "part"],
                       check=False, stderr=subprocess.DEVNULL)
        self.lines = (self.folder / "part").read_text().splitlines(keepends=True)

    def check(self, lines):
        (self.folder / "part").write_text("".join(lines))
        return subprocess.run([SCALE / "recipe.py", "check", self.list, recipe.MODEL, self.folder / "part"], check=False,
                              stdout=subprocess.DEVNULL).returncode == 0

    def test_takes_all_in_any_order_and_nothing_else(self):
        self.assertEqual(len(self.lines), 6)
        self.assertTrue(self.check(self.lines[::-1]))
        self.assertFalse(self.check(self.lines[1:]))
        self.assertFalse(self.check(self.lines + self.lines[:1]))
        self.assertFalse(self.check([self.lines[0].replace("church", "tench")] + self.lines[1:]))
        self.assertFalse(self.check([self.lines[1].replace("000001", "000000")] + self.lines[1:]))
        self.assertFalse(self.check(self.lines + [self.lines[0].replace("000000", "000009")]))


class Simulation(unittest.TestCase):
    ideal = simulate.Fleet(mean=0.02, deviation=0, start=0, spread=0, stragglers=0, failures=0)

    def total(self, job, shard, resume=True, seed=1, **changes):
        return simulate.simulate(np.random.default_rng(seed), self.ideal._replace(**changes), job, shard, resume)

    def test_equal_workers_that_do_not_fail_lose_nothing(self):
        for workers in (1, 7, 100):
            for shard in (100, 1000):
                self.assertAlmostEqual(self.total((workers, 1000), shard), 1, 9)  # sums of up to a thousand doubles

    def test_one_worker_takes_the_sum_of_its_starts_and_images(self):
        self.assertAlmostEqual(self.total((1, 1000), 100, start=3, deviation=0), 1 + 10 * 3 / (1000 * 0.02), 9)
        self.assertAlmostEqual(self.total((1, 1000), 100, deviation=0.05), 1, 9)

    def test_shards_that_do_not_divide_among_the_workers_wait_for_the_last(self):
        self.assertAlmostEqual(self.total((2, 150), 100), 2 / 1.5, 9)

    def test_a_straggler_holds_up_as_long_as_its_shard(self):
        # One of the workers takes three times as long: with its share at once, or with what it takes of small shards.
        slow = {"stragglers": 0.3, "straggle": 3.0}
        large, small = (self.total((10, 1000), shard, **slow) for shard in (1000, 10))
        self.assertGreater(large, 2)
        self.assertLess(small, 1.1)

    def test_loss_grows_with_failures_and_more_without_resuming(self):
        def loss(rate, resume):
            return np.mean([self.total((10, 100_000), 50_000, resume, seed, failures=rate) for seed in range(40)])

        for resume in (True, False):
            losses = [loss(rate, resume) for rate in (0, 0.1, 1, 3)]
            self.assertEqual(losses, sorted(losses))
            self.assertGreater(losses[3], losses[1])
        self.assertGreater(loss(1, False), loss(1, True))

    def test_shards_begun_again_take_as_long_as_theory_says(self):
        # The mean time until an attempt of length d meets no failure of rate r is (e^(r d) - 1) / r (with no time between).
        rng, rate, length = np.random.default_rng(1), 2 / 3600, 1800.0
        lost = simulate.lost_without(rng, self.ideal._replace(failures=2, recovery=0), np.full((200, 100), length))
        self.assertAlmostEqual((lost.mean() + length) / (np.expm1(rate * length) / rate), 1, delta=0.02)  # five deviations

    def test_moments_are_those_of_the_quantiles(self):
        mean, deviation = simulate.moments([0, 1], [0, 1000])  # uniform
        self.assertAlmostEqual(mean, 0.5, 3)
        self.assertAlmostEqual(deviation, 12**-0.5, 3)


class Page(unittest.TestCase):
    def test_holds_the_tables_of_what_was_measured(self):
        found = plan.BLOCK.search((SCALE / "README.md").read_text(encoding="utf-8"))
        self.assertEqual(found[0], found[1] + plan.make_tables() + found[2])


if __name__ == "__main__":
    unittest.main()
