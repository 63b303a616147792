#!/usr/bin/env python3
"""Real checkpoints: the five forms of one ResNet-18, and CIFAR's networks against PyTorch's answers.

Needs the data that is not part of this repository; skipped, by name, where it is absent. Run by ctest with
RESNET_PROGRAM in the environment.
"""
import contextlib
import hashlib
import io
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from convert_support import convert, np

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
PROGRAM = os.environ.get("RESNET_PROGRAM", str(ROOT / "build" / "resnet"))
FORMS = ("resnet18.pth", "resnet18-legacy-parallel.pth", "resnet18.safetensors", "resnet18-bn.onnx")
CIFAR = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}

if not (DATA / "weights").is_dir() or not (DATA / "cifar").is_dir():
    print(f"skipped: {DATA} has no weights or no cifar")
    sys.exit(77)


class Shared(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def converted(self, checkpoint, *options):
        """The path of the model file, and the report."""
        model, out, err = self.folder / "model.resnet", io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = convert.main([str(checkpoint), "-o", str(model), *options])
        self.assertEqual((status, err.getvalue()), (0, ""))
        return model, out.getvalue()

    def unpacked(self, name):
        with lzma.open(DATA / "weights" / (name + ".xz")) as source:
            path = self.folder / name
            path.write_bytes(source.read())
        return path

    def write_safetensors_shards(self, name):
        """The fifth form: a safetensors file in two, with an index."""
        data = self.unpacked(name).read_bytes()
        size = int.from_bytes(data[:8], "little")
        entries, index = json.loads(data[8:8 + size]), {}
        entries.pop("__metadata__", None)
        names = sorted(entries)
        for shard, part in (("one.safetensors", names[::2]), ("two.safetensors", names[1::2])):
            body, head = b"", {}
            for tensor in part:
                begin, end = (8 + size + offset for offset in entries[tensor]["data_offsets"])
                head[tensor] = {**entries[tensor], "data_offsets": [len(body), len(body) + end - begin]}
                body += data[begin:end]
                index[tensor] = shard
            raw = json.dumps(head).encode()
            (self.folder / shard).write_bytes(len(raw).to_bytes(8, "little") + raw + body)
        path = self.folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": index}))
        return path

    def test_forms_of_resnet18(self):
        """The whole files are equal, and so are the tensors."""
        digests = {}
        for form in FORMS:
            model, report = self.converted(self.unpacked(form))
            self.assertIn("resnet18 (basic blocks 2-2-2-2, width 64)", report)
            digests[form] = hashlib.sha256(model.read_bytes()).hexdigest()
        model, _ = self.converted(self.write_safetensors_shards("resnet18.safetensors"))
        digests["shards"] = hashlib.sha256(model.read_bytes()).hexdigest()
        self.assertEqual(len(set(digests.values())), 1, digests)

    @unittest.skipUnless(os.access(PROGRAM, os.X_OK), "the program is not built")
    def test_cifar_against_pytorch(self):
        images = sorted((DATA / "cifar" / "images").glob("*.png"))
        listed = "\n".join(map(str, images)).encode()
        for name, checkpoint in CIFAR.items():
            model, report = self.converted(DATA / "cifar" / checkpoint)
            self.assertIn(f"{name} (basic blocks", report)
            self.assertIn("no resize, crop 32, mean 0.485,0.456,0.406, std 0.229,0.224,0.225", report)
            done = subprocess.run([PROGRAM, "classify", "--model", str(model), "--json", "--logits", "--files-from",
                                   "-"],
                                  input=listed, capture_output=True, check=True)
            logits = np.array([json.loads(line)["logits"] for line in done.stdout.splitlines()])
            expected = np.load(DATA / "cifar" / f"{name}-logits.npy")
            self.assertEqual(logits.shape, (1000, 10))
            self.assertEqual((logits.argmax(1) == expected.argmax(1)).sum(), 1000)
            # What two orders of summing float32 differ by is a hundredth of this.
            self.assertLess(abs(logits - expected).max(), 1e-4 * abs(expected).max())


if __name__ == "__main__":
    unittest.main()
