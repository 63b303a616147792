#!/usr/bin/env python3
"""Tests the reading of safetensors: one file, or several with an index."""
import json
import os
import struct
import unittest

from convert_support import Case, safetensors, safetensors_file, safetensors_header, shard_index, tiny


class Safetensors(Case):
    def setUp(self):
        super().setUp()
        self.arrays = tiny()
        self.entries = safetensors_header(self.arrays)
        self.data = b"".join(array.tobytes() for array in self.arrays.values())

    def with_entry(self, reason, **changes):
        self.entries["bn1.weight"] = {**safetensors_header(self.arrays)["bn1.weight"], **changes}
        self.refused(safetensors_file(self.entries, self.data), reason)

    def test_header_size(self):
        good = safetensors_file(self.entries, self.data)
        self.refused(good[:8], "not a checkpoint")
        for size, reason in ((2 ** 64 - 1, "more than is read"), (len(good) - 7, "more than is read"),
                             (0, "no valid JSON"), (10, "no valid JSON"), (len(good) - 8, "no valid JSON")):
            self.refused(struct.pack("<Q", size) + good[8:], reason)
        self.refused(safetensors_file(json.dumps(self.entries).encode() + b" " * (4 << 20), self.data), "more than is")

    def test_json(self):
        for raw, reason in (
                (b"{" * 100000, "no valid JSON"), (b'{"a":' + b"[" * 500000, "no valid JSON"),
                (b'{"a":"\xff"}', "no valid JSON"), (b"{} x", "no valid JSON"), (b'{"a":1,"a":2}', "names a twice"),
                (b'{"a":{"dtype":1,"dtype":2}}', "names dtype twice"), (b'{"a":1e3}', "number 1e3"),
                (b'{"a":NaN}', "number NaN"), (b'{"a":' + b"9" * 100000 + b"}", "number 999"),
                (b'{"a":-Infinity}', "number -Infinity"), (b'{"a":[]}', "describes a"), (b'{"a":1}', "describes a")):
            self.refused(safetensors_file(raw, self.data), reason)
        self.refused(b"[\0\0\0\0\0\0\0{}" + bytes(100), "no valid JSON")

    def test_entries(self):
        for dtype in ("F8_E4M3", "C64", "f32", "", 1, ["F32"], {"F32": 1}, None):
            self.with_entry("which is not read", dtype=dtype)
        for shape in ([-4], ["4"], [True], 4, "4", None, {"4": 4}, [[4]], [None]):
            self.with_entry("not sizes", shape=shape)
        for shape in ([5], [4, 4], [], [0], [1] * 8 + [4], [2 ** 40, 2 ** 40], [10 ** 18] * 8):
            self.with_entry("but has 16 bytes", shape=shape)
        begin, end = self.entries["bn1.weight"]["data_offsets"] = [2352, 2368]
        for offsets in ([begin], [begin, end, end], [-1, end], begin, None, [begin, "x"], [begin, True]):
            self.with_entry("not sizes", data_offsets=offsets)
        for offsets in ([end, begin], [begin, 10 ** 18], [10 ** 9, 10 ** 9 + 16]):
            self.with_entry("lies outside the file", data_offsets=offsets)
        self.with_entry("overlap", data_offsets=[0, 16])
        self.with_entry("leave a hole at byte 2352", data_offsets=[begin + 4, end + 4])
        self.with_entry("describes bn1.weight by other things", extra=1)
        del self.entries["bn1.weight"]["dtype"], self.entries["bn1.weight"]["extra"]
        self.refused(safetensors_file(self.entries, self.data), "describes bn1.weight by other things")

    def test_holes_and_ends(self):
        good = safetensors_file(self.entries, self.data)
        self.refused(good + b"\0", "1 bytes behind its last tensor")
        self.refused(good[:-1], "lies outside the file")
        del self.entries["bn1.weight"]
        self.refused(safetensors_file(self.entries, self.data), "leave a hole at byte 2352")


class Shards(Case):
    """An index (model.safetensors.index.json) and the files beside it."""

    def setUp(self):
        super().setUp()
        self.arrays = tiny()
        names = list(self.arrays)
        self.parts = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
        for shard, part in self.parts.items():
            self.path(shard, safetensors({name: self.arrays[name] for name in part}))
        self.map = {name: shard for shard, part in self.parts.items() for name in part}

    def check(self, index, reason, status=3):
        got, _, message = self.run_main(self.path("in", index), "-o", self.output)
        self.assertIn(reason, message)
        self.assertEqual(got, status, message)
        self.assertFalse(os.path.exists(self.output))

    def test_same_as_one_file(self):
        data = self.converted(shard_index(self.map))
        self.assertIn("safetensors in several files", self.report)
        self.assertEqual(data, self.converted(safetensors(self.arrays)))

    def test_names_of_files(self):
        for name in ("/etc/passwd", "../a.safetensors", "x/a.safetensors", ".a.safetensors", "a.bin", "",
                     "a.safetensors\n",
                     "a" * 300 + ".safetensors", "\x1b.safetensors"):
            self.check(shard_index({**self.map, "fc.bias": name}), "no name of a .safetensors file beside it")

    def test_files_that_are_not_there(self):
        other = shard_index({name: shard.replace("b", "c", 1) for name, shard in self.map.items()})
        self.check(other, "c.safetensors: cannot be opened", status=4)
        os.mkfifo(self.path("c.safetensors"))
        self.check(other, "is not a regular file", status=4)

    def test_index_and_files_must_agree(self):
        first = next(iter(self.map))
        self.check(shard_index({name: shard for name, shard in self.map.items() if name != first}), f"agree on {first}")
        self.check(shard_index({**self.map, first: "b.safetensors"}), f"agree on {first}")
        self.check(shard_index({**self.map, "more": "b.safetensors"}), "agree on more")
        self.path("b.safetensors", b"hello, this is no file of that kind")
        self.check(shard_index(self.map), "b.safetensors: has a safetensors header of")

    def test_damaged_indices(self):
        for index, reason in ((b"{       ", "no valid JSON"), (b'{"weight_map": 1}', "without a weight_map"),
                              (b'{"weight_map": {"a": 1}}', "without a weight_map"),
                              (b'{"a":1, "a":2}', "names a twice"),
                              (b'{"weight_map": ' + b"[" * 100000, "no valid JSON"),
                              (b"{" + b" " * (5 << 20), "more than"),
                              (shard_index({str(i): f"{i}.safetensors" for i in range(65)}), "more than the 64")):
            self.check(index, reason)
        self.check(shard_index({}), "begins with nothing")


if __name__ == "__main__":
    unittest.main()
