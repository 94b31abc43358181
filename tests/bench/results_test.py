# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from results import Goal, Measure, Results, compare  # noqa: E402


class Judgement(unittest.TestCase):
    def test_ratio_at_its_limit_is_enough(self):
        measure = Measure("m", "ms", ours=15, peer=100, goal=Goal("ratio", 0.15))
        self.assertEqual(measure.ratio(), 0.15)
        self.assertIs(measure.ok(), True)
        measure.ours = 15.1
        self.assertIs(measure.ok(), False)

    def test_difference(self):
        measure = Measure("m", "ms", ours=60, peer=10, goal=Goal("difference", 50))
        self.assertIs(measure.ok(), True)
        measure.ours = 60.5
        self.assertIs(measure.ok(), False)

    def test_value_needs_no_peer(self):
        self.assertIs(Measure("m", "exits", ours=0, goal=Goal("value", 0)).ok(), True)
        self.assertIs(Measure("m", "exits", ours=0.001, goal=Goal("value", 0)).ok(), False)

    def test_least(self):
        self.assertIs(Measure("m", "", ours=100, peer=100, goal=Goal("least", 1)).ok(), True)
        self.assertIs(Measure("m", "", ours=99, peer=100, goal=Goal("least", 1)).ok(), False)

    def test_unknown_is_neither_reached_nor_missed(self):
        self.assertIsNone(Measure("m", "ms", ours=1, goal=Goal("ratio", 1)).ok())
        self.assertIsNone(Measure("m", "ms", ours=1, peer=0, goal=Goal("ratio", 1)).ok())
        self.assertIsNone(Measure("m", "ms", peer=1, goal=Goal("ratio", 1)).ok())
        self.assertIsNone(Measure("m", "ms", ours=1, peer=1).ok())

    def test_median_and_spread(self):
        measure = compare("m", "ms", [3, 1, 50], [10, 30], "q")
        self.assertEqual((measure.ours, measure.peer, measure.ratio()), (3, 20, 0.15))
        self.assertEqual(measure.details,
                         {"n": 3, "min": 1, "max": 50, "peer_n": 2, "peer_min": 10, "peer_max": 30})


class Records(unittest.TestCase):
    def test_every_key_is_there(self):
        record = Measure("m", "ms", why="no KVM", goal=Goal("ratio", 0.15)).record()
        self.assertEqual(record, {"measure": "m", "unit": "ms", "ours": None, "peer": None, "peer_name": None,
                                  "ratio": None, "goal": "<= 0.15 x", "ok": None, "why": "no KVM"})

    def test_goals_in_words(self):
        self.assertEqual(Goal("difference", 50).text("ms"), "<= 50 ms more")
        self.assertEqual(Goal("value", 3).text("MiB"), "<= 3 MiB")
        self.assertEqual(Goal("value", 0).text("exits"), "= 0")

    def test_file_and_table(self):
        results = Results(lambda name: name != "unwanted")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            results.add(Measure("kept", "ms", ours=2.00004, peer=8, goal=Goal("ratio", 0.2)), Measure("unwanted", "ms"))
        self.assertIn("NO", output.getvalue())
        self.assertNotIn("unwanted", output.getvalue())
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "made" / "bench.json"
            results.write(path)
            (record,) = json.loads(path.read_text())
        self.assertEqual((record["ours"], record["ratio"], record["ok"]), (2.0, 0.25, False))


if __name__ == "__main__":
    unittest.main()
