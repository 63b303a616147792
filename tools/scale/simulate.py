#!/usr/bin/env python3
"""What stragglers and failures cost: how much longer a fleet takes than its work divided evenly, by the size of its shards.

    simulate.py [-o FILE.tsv]    print a table; write all of it to FILE.tsv, which tools/plot.py draws

A worker that is free takes the next shard: it starts a process, loads the model and answers image by image, each as long as
one of tools/measured/image_times.tsv. Workers are not equally fast, and they fail at random; then their shard is started
again where the records end (--resume), or from its beginning. What is assumed is in `Fleet`; the rest is measured.
"""
import argparse
import csv
import pathlib
from typing import NamedTuple

import numpy as np

MEASURED = pathlib.Path(__file__).resolve().parent.parent / "measured"
# Workers, and images for each: a million images, a hundred million, a billion.
JOBS = ((1, 1_000_000), (100, 1_000_000), (10_000, 100_000))
SHARDS = [digit * 10**power for power in (2, 3, 4, 5) for digit in (1, 2, 5)] + [1_000_000]
SHARDS_SHOWN = (100, 1_000, 10_000, 100_000, 1_000_000)
RUNS, SHARDS_TRIED = 400, 3_000_000  # for each size so many runs, or as many as have so many shards together, or one
IMAGES_LOST = 24  # that a process at most has read and not written: 8 in its session, 16 that wait for their turn


class Fleet(NamedTuple):
    """Seconds, but where it says otherwise."""
    mean: float  # of an image
    deviation: float
    start: float  # of a process until its first image: the model is loaded
    spread: float = 0.1  # of the workers' logarithmic speed: a tenth up or down
    stragglers: float = 0.01  # the share of workers that take three times as long
    straggle: float = 3.0
    failures: float = 0.01  # for each hour that a worker runs
    recovery: float = 60.0  # until the engine has seen a failure and found a place


# ---- What was measured ----

def read_table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def moments(quantiles, milliseconds):
    """Mean and standard deviation in seconds of a distribution that is linear between its quantiles."""
    values = np.interp(np.linspace(0, 1, 10_001), quantiles, milliseconds) / 1e3
    return values.mean(), values.std()


def measured_fleet():
    """With the start of the model that takes longest."""
    rows = read_table(MEASURED / "image_times.tsv")
    mean, deviation = moments(*(np.array([float(row[name]) for row in rows]) for name in ("quantile", "ms")))
    starts = [float(row["value"]) for row in read_table(MEASURED / "scale.tsv") if row["figure"] == "start_s"]
    return Fleet(mean, deviation, max(starts))


# ---- The simulation ----

def slowness(rng, fleet, workers):
    """[workers] how many times as long as the mean each takes"""
    slow = np.exp(rng.normal(0, fleet.spread, workers))
    slow[rng.random(workers) < fleet.stragglers] *= fleet.straggle
    return slow


def work_of_shards(rng, fleet, shape, images):
    """Seconds at mean speed: the sum of so many times, as the gamma distribution of that mean and deviation."""
    if fleet.deviation == 0:
        return np.full(shape, images * fleet.mean)
    scale = fleet.deviation**2 / fleet.mean
    return rng.gamma(images * fleet.mean / scale, scale, shape)


def lost_with_resume(rng, fleet, seconds):
    """What failures add to shards that take so long without: the images in flight, and the start."""
    failures = rng.poisson(fleet.failures / 3600 * seconds)
    return failures * (fleet.recovery + fleet.start + fleet.mean * IMAGES_LOST / 2)


def lost_without(rng, fleet, seconds):
    """What failures add where each begins the shard again."""
    lost, pending = np.zeros(seconds.shape), np.arange(seconds.size)
    while fleet.failures and pending.size:
        until = rng.exponential(3600 / fleet.failures, pending.size)
        failed = until < seconds.flat[pending]
        pending = pending[failed]
        lost.flat[pending] += until[failed] + fleet.recovery + fleet.start
    return lost


def taken_by(shards, spans):
    """[worker, k]: is the worker's k-th shard, which lasts spans[worker, k], one that it takes? The shards go to the earliest
    who are free. None if the rows are too short to tell."""
    starts, taken = np.cumsum(spans, axis=1) - spans, np.zeros(spans.shape, bool)
    taken.flat[np.argpartition(starts, shards - 1, axis=None)[:shards]] = True
    return None if taken[:, -1].any() and spans.shape[1] < shards else taken


def simulate(rng, fleet, job, shard, resume):
    """Total time over that of the same work, divided so that all workers end together and nothing is lost."""
    workers, images = job
    shards, slow = workers * images // shard, slowness(rng, fleet, workers)
    taken, columns = None, min(shards, int(1.3 * images / shard) + 2)
    while taken is None:
        work = work_of_shards(rng, fleet, (workers, columns), shard)
        spans = work * slow[:, None]
        spans += (lost_with_resume if resume else lost_without)(rng, fleet, spans) + fleet.start
        taken, columns = taken_by(shards, spans), min(shards, 2 * columns)
    total = np.where(taken, spans, 0).sum(axis=1).max()
    return total / (work[taken].sum() / (1 / slow).sum())


def runs_of(shards):
    return max(1, min(RUNS, SHARDS_TRIED // shards))


def table(rng, fleet):
    """Rows for each job, shard and way to go on, with the mean of all runs."""
    rows = []
    for job in JOBS:
        for shard in (size for size in SHARDS if size <= job[1]):
            for resume in (True, False):
                runs = [simulate(rng, fleet, job, shard, resume) for _ in range(runs_of(job[0] * job[1] // shard))]
                rows.append({"workers": job[0], "images": job[0] * job[1], "shard": shard,
                             "resume": "yes" if resume else "no", "loss_percent": f"{100 * (np.mean(runs) - 1):.4g}"})
    return rows


# ---- Output ----

def percent(text):
    return f"{float(text):.3g} %" if float(text) < 999.5 else f"{float(text) / 100:.0f} times"


def best_shard(rows, workers, resume):
    rows = [row for row in rows if (row["workers"], row["resume"]) == (workers, resume)]
    return int(min(rows, key=lambda row: float(row["loss_percent"]))["shard"])


def markdown(rows):
    """Shard sizes down, jobs across; in each cell the loss with --resume / without."""
    jobs = list(dict.fromkeys((row["workers"], row["images"]) for row in rows))
    lines = ["| images a shard | " + " | ".join(f"{int(workers):,} worker{'s' * (int(workers) > 1)}, {int(images):,}"
                                                for workers, images in jobs) + " |",
             "|---:|" + "---:|" * len(jobs)]
    loss = {(row["workers"], int(row["shard"]), row["resume"]): row["loss_percent"] for row in rows}
    for shard in SHARDS_SHOWN:
        cells = [" / ".join(percent(loss[workers, shard, resume]) for resume in ("yes", "no"))
                 if (workers, shard, "yes") in loss else "" for workers, _ in jobs]
        lines.append(f"| {shard:,} | " + " | ".join(cells) + " |")
    least = [" / ".join(f"{best_shard(rows, workers, resume):,}" for resume in ("yes", "no")) for workers, _ in jobs]
    return "\n".join(lines + ["| least at | " + " | ".join(least) + " |"])


def main():
    parser = argparse.ArgumentParser(description="Simulate stragglers and failures.")
    parser.add_argument("-o", "--output")
    arguments = parser.parse_args()
    rows = table(np.random.default_rng(1), measured_fleet())
    print(markdown(rows))
    if arguments.output:
        with open(arguments.output, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
