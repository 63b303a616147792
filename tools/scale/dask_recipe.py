#!/usr/bin/python3
"""Classify a list of images with Dask, lose a worker, and answer every image exactly once.

    dask_recipe.py [LIST [MODEL]]    a file of paths, a line each (2,000 links to the samples); a model file (the default one)

Recognizer, shards_of and answer_shard are the recipe: each worker process loads the model once; a task answers a shard and
writes its part, whole or not at all, so a task that Dask gives out again does not answer again what is done. (A network that
is much faster in batches has session.logits for them.) Here a scheduler and two workers run on this machine;
Client("tcp://SCHEDULER:8786") takes their place where a cluster runs. The interpreter is Debian's, for Debian's Dask.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
subprocess.run(["sh", HERE.parent / "packages.sh", "python3-distributed", "python3-numpy"], check=True)
sys.path[:0] = [str(HERE), str(HERE.parent)]

from distributed import Client, LocalCluster, WorkerPlugin, as_completed, get_worker  # noqa: E402 (installed above)
import recipe  # noqa: E402

SHARD_SIZE = 20  # images: some tasks are done when the worker is killed, in a small list too


class Recognizer(WorkerPlugin):
    """What a worker has from its start to its end: a session with the model."""

    def __init__(self, model):
        self.model = str(model)

    def setup(self, worker):
        sys.path.insert(0, str(HERE.parent))
        import resnet
        worker.session = resnet.Model(self.model, threads=1).session(threads=1)

    @staticmethod
    def answer(session, path):
        """The record that `resnet classify --json` prints."""
        import resnet
        try:
            best = session.classify(path)
        except resnet.Error as error:
            return {"file": path, "error": str(error).removeprefix(f"{path}: ")}
        return {"file": path, "top": [{"index": session.model.labels.index(label), "label": label,
                                       "score": float(f"{score:.9g}")} for label, score in best]}


def answer_shard(part, paths):
    """Write the records of these images to `part`, unless that was done; return how many there are."""
    if not part.exists():
        session = get_worker().session
        scratch = part.with_suffix(f".{os.getpid()}")
        scratch.write_text("".join(json.dumps(Recognizer.answer(session, path)) + "\n" for path in paths))
        scratch.replace(part)
    return len(paths)


def shards_of(paths, folder):
    """[(part, paths), ...]"""
    return [(folder / f"{first:08}.jsonl", paths[first:first + SHARD_SIZE]) for first in range(0, len(paths), SHARD_SIZE)]


def answer_all(client, shards):
    """Give the shards out, and kill a worker when a third of the images has an answer."""
    total, done, killed = sum(len(paths) for _, paths in shards), 0, None
    workers = client.run(os.getpid)
    futures = client.map(answer_shard, *zip(*shards), pure=False)
    for _, count in as_completed(futures, with_results=True):
        done += count
        if not killed and 3 * done >= total:
            killed = next(iter(workers.values()))
            os.kill(killed, signal.SIGKILL)
            print(f"a worker killed at image {done} of {total}")
    client.wait_for_workers(len(workers), timeout=60)
    if killed in client.run(os.getpid).values():
        sys.exit("the killed worker is still there")
    print("Dask started another")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        file, model = (sys.argv[1:] + [None, None])[:2]
        file, model = file or recipe.make_list(folder / "input", 2000), model or recipe.MODEL
        (folder / "parts").mkdir()
        shards = shards_of(recipe.read_list(file), folder / "parts")
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder / "dask",
                          silence_logs="CRITICAL") as cluster, Client(cluster) as client:
            client.register_worker_plugin(Recognizer(model))
            answer_all(client, shards)
        return 0 if recipe.check(file, str(model), *(part for part, _ in shards)) else 1


if __name__ == "__main__":
    sys.exit(main())
