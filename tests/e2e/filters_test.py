"""`dev locks --lock --pid --process --trace --since --until --family --finding` and `--format`: what is shown, of what
stays true."""

import json
import re
import unittest

from harness import TracedTest


class Filters(TracedTest):
    def setUp(self):
        """Three processes: two in a deadlock by flock, one that holds a POSIX lock."""
        super().setUp()
        self.files = [self.file(name) for name in ("a", "b", "c")]
        stage = self.stage()
        self.actors = stage.cast(3)
        self.addCleanup(lambda: self.actors[0].kill())  # or the stage would wait for those in the ring
        for actor in self.actors:
            for path in self.files:
                actor.call(f"open {path}")
        for place, actor in enumerate(self.actors[:2]):
            actor.call(f"flock {3 + place} ex")
        self.actors[2].call("fcntl 5 setlkw wr 0 0")
        for place, actor in enumerate(self.actors[:2]):
            actor.block(f"flock {4 - place} ex", self.files[1 - place])

    def shown(self, *options):
        run = self.planloop("dev", "locks", "--session", self.session, *options)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout

    def json(self, *options):
        return json.loads(self.shown("--format", "json", *options))

    def test_each_leaves_out_what_was_not_asked_for(self):
        first, second, third = (actor.pid for actor in self.actors)
        trace = next(entry["trace_id"] for entry in self.json()["timeline"] if entry["pid"] == third)
        ring = {first, second}
        cases = [
            (["--lock", self.files[2]], {third}, 0),
            (["--lock", "flock:fe:ff:1"], set(), 0),
            (["--pid", str(third)], {third}, 0),
            (["--pid", f"{first},{second}"], ring, 1),
            (["--process", "lock_actor"], ring | {third}, 1),
            (["--process", "cron"], set(), 0),
            (["--trace", trace], {third}, 0),
            (["--family", "posix"], {third}, 0),
            (["--family", "flock,ofd"], ring, 1),
            (["--since", "2001-01-01T00:00:00"], ring | {third}, 1),
            (["--until", "2001-01-01T00:00:00"], set(), 0),
            (["--finding", "long_wait"], ring | {third}, 0),
            (["--pid", str(first), "--family", "flock"], {first}, 1),
            (["--pid", str(first), "--family", "posix"], set(), 0),
        ]
        for options, pids, deadlocks in cases:
            with self.subTest(options=options):
                report = self.json(*options)
                self.assertEqual({entry["pid"] for entry in report["timeline"]}, pids)
                found = [finding["kind"] for finding in report["findings"]]
                self.assertEqual((found.count("deadlock"), report["findings_not_shown"]), (deadlocks, 1 - deadlocks))
                self.assertEqual(report["shown"], " ".join(str(word) for word in options))

    def test_a_relative_path_and_one_through_a_link_name_the_lock(self):
        (self.folder / "link").symlink_to(self.folder)
        for path in ("c", "link/../c", "link/c"):
            with self.subTest(path=path):
                run = self.planloop("dev", "locks", "--session", self.session, "--json", "--lock", path, cwd=self.folder)
                self.assertEqual({entry["pid"] for entry in json.loads(run.stdout)["timeline"]}, {self.actors[2].pid})

    def test_a_time_is_taken_from_the_timeline_as_it_stands_there(self):
        lines = [line for line in self.shown().splitlines() if line.startswith("tr_")]
        at = re.search(r" (\d\d:\d\d:\d\d\.\d{3}) ", lines[-1])[1]
        later = [line for line in self.shown("--since", at).splitlines() if line.startswith("tr_")]
        self.assertEqual(later, [line for line in lines if re.search(r" (\d\d:\d\d:\d\d\.\d{3}) ", line)[1] >= at])
        self.assertIn(lines[-1], later)
        self.assertIn(lines[-1], self.shown("--until", at))

    def test_the_text_says_that_it_is_a_part(self):
        text = self.shown("--pid", str(self.actors[2].pid))
        self.assertIn(f"Shown: --pid {self.actors[2].pid}; 1 finding is not shown.", text)
        self.assertNotIn("Who made others wait", text)

    def test_fail_on_looks_at_what_is_shown(self):
        for pid, status in ((self.actors[2].pid, 0), (self.actors[0].pid, 1)):
            run = self.planloop("dev", "locks", "--session", self.session, "--fail-on", "deadlock", "--pid", str(pid))
            self.assertEqual(run.returncode, status)

    def test_formats_tell_the_same(self):
        first_lines = [self.shown(*options).split("\n\n")[0] for options in ([], ["--format", "table"])]
        self.assertEqual(*first_lines)
        report = self.json()
        lines = [json.loads(line) for line in self.shown("--format", "jsonl").splitlines()]
        events = [line for line in lines if line["event"] != "finding"]
        self.assertEqual([(e["lock_entry_id"], e["event"]) for e in events],
                         [(e["lock_entry_id"], e["event"]) for e in report["timeline"]])
        (finding,) = [line for line in lines if line["event"] == "finding"]
        self.assertEqual((finding["kind"], finding["summary"]),
                         (report["findings"][0]["kind"], report["findings"][0]["summary"]))

    def test_the_graph_has_the_deadlock_in_red_and_no_more_than_was_asked_for(self):
        graph = self.shown("--format", "dot")
        self.assertTrue(graph.splitlines()[1].startswith("digraph"), graph)
        red = re.findall(r'"thread (\d+) \d+" -> "lock .*color=red', graph)
        self.assertEqual({int(pid) for pid in red}, {actor.pid for actor in self.actors[:2]})
        self.assertNotIn("color=red", self.shown("--format", "dot", "--lock", str(self.files[2])))

    def test_the_whole_machine_is_narrowed_too(self):
        pid = str(self.actors[0].pid)
        run = self.planloop("dev", "locks", "--system", "--json", "--pid", pid)
        report = json.loads(run.stdout)
        self.assertEqual([finding["kind"] for finding in report["findings"]], ["deadlock"])
        self.assertEqual({held["path"] for held in report["held"]}, {str(self.files[0])})
        graph = self.planloop("dev", "locks", "--system", "--format", "dot", "--pid", pid).stdout
        self.assertIn(f'"thread {pid} {pid}" -> "lock', graph)

    def test_what_makes_no_sense_is_one_line(self):
        for options in (["--pid", "x"], ["--pid", "0"], ["--since", "yesterday"], ["--until", "25:00:00"],
                        ["--family", "flok"], ["--finding", "dedlock"], ["--format", "xml"],
                        ["--json", "--format", "dot"], ["--system", "--since", "08:00:00"],
                        ["--system", "--format", "jsonl"], ["--follow", "--format", "dot"]):
            with self.subTest(options=options):
                run = self.planloop("dev", "locks", *options)
                self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), run.stderr)


if __name__ == "__main__":
    unittest.main()
