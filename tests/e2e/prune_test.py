"""planloop dev prune: deletes old recordings, compresses those that stay, leaves plans and what is in use alone."""

import json
import os
import re
import shutil
import subprocess
import unittest

from harness import BINARY, PYTHON, TracedTest

DAY_S = 86400
PAIRS = "import fcntl,sys\nf=open(sys.argv[1],'w')\nfor _ in range(3000): fcntl.flock(f,2); fcntl.flock(f,8)"


class Prune(TracedTest):
    def logs(self, session):
        return self.home / "sessions" / session / "logs"

    def record(self, session, days_ago=0, program=("true",)):
        ran = self.planloop("dev", "run", "--session", session, "--", "flock", self.file(), *program)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        for path in self.logs(session).rglob("*"):
            if path.is_file():
                at = path.stat().st_mtime - days_ago * DAY_S
                os.utime(path, (at, at))

    def prune(self, *options, status=0):
        ran = self.planloop("dev", "prune", *options)
        self.assertEqual(ran.returncode, status, ran.stderr)
        return ran

    def told(self):
        """The timeline but for its times, which every reading of the clock's rate tells a little otherwise."""
        return [(entry["event"], entry["lock_entry_id"], entry["pid"], entry["lock"]) for entry in self.report().data["timeline"]]

    def sessions(self):
        return sorted(path.name for path in (self.home / "sessions").iterdir())

    def test_deletes_what_is_older_and_says_what_that_freed(self):
        self.record("old", days_ago=40)
        self.record("new")
        tried = self.prune("--older-than", "30d", "--dry-run")
        self.assertIn("would delete old (", tried.stdout)
        self.assertEqual(self.sessions(), ["new", "old"])
        done = self.prune("--older-than", "30d")
        self.assertRegex(done.stdout, r"^deleted old \([\d.]+ MiB, last recorded .*\): older than 30d\n$")
        self.assertRegex(done.stderr, r"freed [\d.]+ MiB, 1 session deleted")
        self.assertEqual(self.sessions(), ["new"])

    def test_deletes_the_oldest_until_the_rest_is_small_enough(self):
        for days, name in ((3, "first"), (2, "second"), (1, "third")):
            self.record(name, days_ago=days)
        self.prune("--max-size", "2500K")  # each has a megabyte
        self.assertEqual(self.sessions(), ["second", "third"])
        self.prune("--max-size", "0")
        self.assertEqual(self.sessions(), [])

    def test_plans_stay(self):
        made = self.planloop("sessions", "create", "--id", "planned")
        self.assertEqual(made.returncode, 0, made.stderr)
        state = self.home / "sessions" / "planned" / "state.json"
        before = state.read_bytes()
        self.record("planned", days_ago=9)
        self.prune("--older-than", "1d")
        self.assertFalse(self.logs("planned").exists())
        self.assertEqual(state.read_bytes(), before)

    def test_what_is_being_recorded_stays(self):
        lock = self.file()
        running = subprocess.Popen([BINARY, "dev", "run", "--session", "live", "--", "flock", lock, "sh", "-c",
                                    "echo running; read end"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=self.environment, text=True)
        self.addCleanup(running.kill)
        self.assertEqual(running.stdout.readline(), "running\n")
        done = self.prune("--older-than", "0s", "--max-size", "0", "--compress")
        self.assertEqual(done.stdout, "")
        self.assertIn("1 in use, not touched", done.stderr)
        running.communicate("end\n")
        self.assertEqual(self.report("live").lock_of(lock)["acquisitions"], 1)

    def test_a_compressed_session_is_read_as_before_and_takes_a_sixth_at_most(self):
        lock = self.file()
        self.record(self.session, program=(PYTHON, "-c", PAIRS, self.file("busy")))
        before = self.told()
        claimed = len(self.spools[0].read_bytes().rstrip(b"\0"))
        done = self.prune("--compress")
        self.assertIn("compressed test: ", done.stdout)
        (packed,) = self.spools
        self.assertRegex(packed.name, r"^locks-v\d-[0-9a-f]{8}-[0-9a-f]+\.spool\.zst$")
        self.assertLessEqual(packed.stat().st_size * 6, claimed)
        self.assertTrue(self.told() == before, "the compressed session reads otherwise")
        self.assertEqual(self.prune("--compress").stdout, "")
        self.assertGreater(self.report().lock_of(lock)["acquisitions"], 0)

    def test_recording_goes_on_in_a_new_spool_and_nothing_counts_twice(self):
        lock = self.file()
        self.record(self.session)
        self.prune("--compress")
        self.record(self.session)
        self.assertEqual(len(self.spools), 2)
        self.assertEqual(self.report().lock_of(lock)["acquisitions"], 2)
        lines = [json.loads(line) for line in (self.logs(self.session) / "planloop.jsonl").read_text().splitlines()]
        self.assertEqual(sum(line["event"] == "lock_acquired" for line in lines), 2)
        self.prune("--compress")
        self.assertEqual(self.report().lock_of(lock)["acquisitions"], 2)

    def test_of_too_many_recordings_the_newest_are_read(self):
        self.record(self.session)
        self.prune("--compress")
        (packed,) = self.spools
        for number in range(63):
            shutil.copy(packed, packed.with_name(packed.name.replace(".spool", f"{number}.spool")))
        newest = self.file("newest")
        ran = self.planloop("dev", "run", "--session", self.session, "--fail-on=deadlock", "--", "flock", newest, "true")
        self.assertIn("3 older spools are not read", ran.stderr)
        self.assertIn(" on 2 locks", ran.stderr)
        self.assertEqual(self.report().lock_of(newest)["acquisitions"], 1)

    def test_a_damaged_compressed_spool_loses_what_is_damaged(self):
        self.record(self.session, program=(PYTHON, "-c", PAIRS, self.file("busy")))
        whole = self.report().data["recorded"]["events"]
        self.prune("--compress")
        (packed,) = self.spools
        good = packed.read_bytes()
        for name, bad in (("cut", good[: len(good) * 3 // 4]), ("bent", good[: len(good) // 2] + b"????" + good[len(good) // 2 + 4 :])):
            with self.subTest(name):
                packed.write_bytes(bad)
                shown = self.planloop("dev", "locks", "--session", self.session, "--json")
                self.assertEqual(shown.returncode, 0, shown.stderr)
                events = json.loads(shown.stdout)["recorded"]["events"]
                self.assertTrue(0 < events < whole, events)
                self.assertTrue(re.search("damaged blocks|truncated", shown.stderr), shown.stderr)

    def test_bad_wishes_are_refused_in_one_line(self):
        cases = ((), "nothing to do"), (("--older-than", "soon"), "wants a time"), (("--older-than", "5"), "wants a time"), \
            (("--older-than", "99999999999w"), "wants a time"), (("--max-size", "big"), "wants a size")
        for options, words in cases:
            with self.subTest(options=options):
                refused = self.prune(*options, status=2)
                self.assertIn(words, refused.stderr)
                self.assertEqual(len(refused.stderr.splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
