"""What planloop shows, and how: lines, colours, strange names, help, the demonstration."""

import json
import os
import pty
import re
import unittest
from pathlib import Path

from harness import BINARY, PYTHON, Report, TracedTest, check_form

LINE = re.compile(
    r"^tr_\d{14}_[0-9a-f]+: (lock_requested \(\w+\)|lock_acquired \(wait: \d+ms\)|lock_released \(hold: \d+ms\)|lock_failed \(wait: \d+ms\))"
    r" \d\d:\d\d:\d\d\.\d{3} +\S+ \d+(/\d+)?  /"
)
ESCAPE = "\x1b["


class Locks(TracedTest):
    def setUp(self):
        super().setUp()
        self.lock = self.file()
        # One try that fails, so that there is something to colour.
        self.traced("flock", self.lock, "flock", "-n", self.lock, "true")

    def locks(self, *options, **more):
        shown = self.planloop("dev", "locks", "--session", self.session, *options, **more)
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        return shown.stdout

    def test_timeline_is_in_the_form_of_the_quick_reference(self):
        timeline = [line for line in self.locks().splitlines() if line.startswith("tr_")]
        self.assertEqual(len(timeline), len(self.report().timeline))
        for line in timeline:
            self.assertRegex(line, LINE)

    def test_summary_leaves_the_timeline_out_and_nothing_else(self):
        whole, summary = self.locks(), self.locks("--summary")
        self.assertNotIn("lock_acquired (", summary)
        for line in ("Session test", "ACQUIRED", "Verdict: "):
            self.assertIn(f"\n{line}", "\n" + whole)
            self.assertIn(f"\n{line}", "\n" + summary)
        whole, summary = json.loads(self.locks("--json")), json.loads(self.locks("--json", "--summary"))
        self.assertTrue(whole["timeline"])
        self.assertEqual(summary["timeline"], [])
        self.assertEqual(list(whole), list(summary))
        self.assertEqual(len(whole["locks"]), len(summary["locks"]))

    def test_limit_cuts_the_timeline_and_nothing_else(self):
        whole, cut = json.loads(self.locks("--json")), json.loads(self.locks("--json", "--limit", "2"))
        events = len(whole["timeline"])
        self.assertGreater(events, 2)
        keys = ("event", "pid", "lock_entry_id")
        self.assertEqual([[entry[key] for key in keys] for entry in cut["timeline"]],
                         [[entry[key] for key in keys] for entry in whole["timeline"][:2]])
        self.assertEqual(cut["timeline_left_out"], events - 2)
        self.assertEqual(cut["recorded"]["events"], events)
        self.assertEqual(len(cut["findings"]), len(whole["findings"]))
        self.assertNotIn("timeline_left_out", json.loads(self.locks("--json", "--limit", str(events))))
        lines = self.locks("--limit", "2").splitlines()
        self.assertEqual(len([line for line in lines if line.startswith("tr_")]), 2)
        self.assertIn(f"... {events - 2} more", lines)
        for options, words in ((("--limit", "x"), "--limit wants a number"), (("--limit", "1", "--summary"), "--limit is about")):
            refused = self.planloop("dev", "locks", "--session", self.session, *options)
            self.assertEqual((refused.returncode, refused.stdout, len(refused.stderr.splitlines())), (2, "", 1))
            self.assertIn(words, refused.stderr)

    def test_the_same_session_reads_the_same_twice(self):
        # Not the times: each reading knows the rate of the counter a little better.
        first, second = ([entry["lock_entry_id"] for entry in json.loads(self.locks("--json"))["timeline"]] for _ in "ab")
        self.assertEqual(first, second)

    def test_reads_the_same_on_one_processor_and_on_all(self):
        # On one, whoever analyses renders the timeline too; and it must be longer than may wait to be rendered.
        pairs = "import fcntl, sys\nfile = open(sys.argv[1])\nfor mode in [2, 8] * 3000: fcntl.flock(file, mode)"
        self.traced(PYTHON, "-c", pairs, self.lock)
        one = str(min(os.sched_getaffinity(0)))
        for options in (["--json"], ["--format", "jsonl"], []):
            command = [BINARY, "dev", "locks", "--session", self.session, *options]
            read = []
            for where in ([], ["taskset", "-c", one]):
                shown = self.run_program([*where, *command])
                self.assertEqual((shown.returncode, shown.stderr), (0, ""))
                # Not the times, as above.
                told = re.compile(r'"event":"\w+"|"lock_entry_id":"\w+"|^tr_\w+: \w+', re.MULTILINE)
                read.append(told.findall(shown.stdout))
            self.assertGreater(len(read[0]), 9000)
            self.assertEqual(read[0], read[1])

    def test_a_failed_try_names_its_error_and_its_blocker(self):
        (failed,) = [line for line in self.locks().splitlines() if "lock_failed" in line]
        self.assertIn("EAGAIN: Resource temporarily unavailable", failed)
        self.assertRegex(failed, r"waited for flock \d+")

    def test_colour_is_for_terminals_and_can_be_refused(self):
        colourful = {name: value for name, value in self.environment.items() if name != "NO_COLOR"}
        colourful["TERM"] = "xterm"
        cases = [
            (self.locks(env=colourful), False),
            (self.locks("--color=always"), True),
            (self.on_terminal(colourful), True),
            (self.on_terminal(colourful, "--color", "never"), False),
            (self.on_terminal({**colourful, "NO_COLOR": "1"}), False),
            (self.on_terminal({**colourful, "NO_COLOR": ""}), True),
            (self.on_terminal({**colourful, "TERM": "dumb"}), False),
            (self.on_terminal({**colourful, "NO_COLOR": "1"}, "--color", "always"), True),
            (self.on_terminal(colourful, "--json"), False),
        ]
        for index, (shown, wanted) in enumerate(cases):
            with self.subTest(case=index):
                self.assertIn("lock_failed", shown)
                self.assertEqual(ESCAPE in shown, wanted)

    def on_terminal(self, environment, *options):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe(BINARY, [BINARY, "dev", "locks", "--session", self.session, *options], environment)
        shown = b""
        try:
            while piece := os.read(terminal, 65536):
                shown += piece
        except OSError:  # the end of a terminal
            pass
        os.close(terminal)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        return shown.decode()

    def test_waits_name_their_blockers(self):
        stage = self.stage()
        holder, waiter = stage.cast(2)
        path = self.file("wanted")
        fd = holder.call(f"open {path}")
        holder.call(f"flock {fd} ex")
        fd = waiter.call(f"open {path}")
        waiter.block(f"flock {fd} ex", path)
        shown = self.locks()
        self.assertRegex(shown, rf"Held at the end\n  {path} for \S+: lock_actor {holder.pid}\n")
        folded = " ".join(shown.split())
        self.assertRegex(folded, rf"Waiting at the end {path} for \S+: lock_actor {waiter.pid}, blocked by lock_actor {holder.pid} ")
        holder.leave()
        waiter.end()
        self.assertRegex(self.locks(), rf"lock_acquired .* lock_actor {waiter.pid}  {path}  waited for lock_actor {holder.pid} \(\S+\)\n")


class StrangeNames(TracedTest):
    def test_any_bytes_in_a_path(self):
        name = os.fsencode(self.folder) + b"/\x1b[31m\xff\n\"\\"
        program = "import fcntl, os, sys; fcntl.flock(os.open(os.fsencode(sys.argv[1]), os.O_RDWR | os.O_CREAT), 2)"
        run = self.traced(PYTHON, "-c", program, os.fsdecode(name), text=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertNotIn(b"\x1b", run.stderr)
        shown = self.planloop("dev", "locks", "--session", self.session, "--json", text=False).stdout
        report = Report(shown.decode())  # is valid UTF-8
        check_form(self, report)
        self.assertEqual([row["path"] for row in report.locks], [str(self.folder) + '/\x1b[31m\ufffd\n"\\'])
        text = self.planloop("dev", "locks", "--session", self.session, text=False).stdout
        self.assertNotIn(b"\x1b", text)
        self.assertIn(b'/\\x1b[31m\\xff\\n"\\', text)
        log = (self.home / "sessions" / self.session / "logs" / "planloop.jsonl").read_bytes()
        for line in log.splitlines():
            json.loads(line.decode())


class Sessions(TracedTest):
    def test_are_listed_newest_first(self):
        for self.session in ("one", "two", "three"):
            self.traced("flock", self.file(), "true")
        listed = [line.split()[-1] for line in self.planloop("dev", "sessions").stdout.splitlines()]
        self.assertEqual(listed, ["SESSION", "three", "two", "one"])

    def test_none_is_no_error(self):
        shown = self.planloop("dev", "sessions")
        self.assertEqual((shown.returncode, shown.stdout), (0, ""))
        self.assertEqual(len(shown.stderr.splitlines()), 1)


class Help(TracedTest):
    def test_every_command_has_its_own_with_an_example(self):
        names = re.findall(r"^  (dev \S+(?: \S+)?)  ", self.planloop("--help").stdout, re.M)
        self.assertIn("dev run", names)
        for name in names:
            with self.subTest(name=name):
                shown = self.planloop(*name.split(), "--help")
                self.assertEqual((shown.returncode, shown.stderr), (0, ""))
                self.assertIn(f"usage: planloop {name}", shown.stdout)
                self.assertLessEqual(max(len(line) for line in shown.stdout.splitlines()), 120)
                self.assertIn("\nexample: ", shown.stdout)

    def test_version(self):
        shown = self.planloop("--version")
        self.assertRegex(shown.stdout, r"^planloop \d+\.\d+\.\d+\n$")
        self.assertEqual(shown.returncode, 0)

    def test_typing_errors_are_understood(self):
        cases = {
            ("dev", "lokcs"): "planloop dev locks",
            ("dev", "rn", "--", "true"): "planloop dev run",
            ("locks",): "planloop dev locks",
            ("dev", "locks", "--sesion", "x"): "--session",
            ("dev", "locks", "--jsn"): "--json",
            ("dev", "run", "--sesion=x", "--", "true"): "--session",
        }
        for words, meant in cases.items():
            with self.subTest(words=words):
                shown = self.planloop(*words)
                self.assertEqual(shown.returncode, 2)
                self.assertIn(f"did you mean {meant}?", shown.stderr)


class Demonstration(TracedTest):
    def test_shows_waits_with_blockers_and_the_deadlock(self):
        script = Path(os.environ["PLANLOOP_SOURCE"]) / "cli" / "demo" / "run"
        shown = self.run_program([script, BINARY])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout, r"lock_acquired \(wait: \d{3}ms\) .*report\.lock  waited for flock \d+ \(\d+ms\)")
        self.assertRegex(shown.stdout, r"error: deadlock \(confirmed\)")
        self.assertEqual(len(re.findall(r"^    perl \d+ holds ", shown.stdout, re.M)), 3)
        self.assertIn("Verdict: 1 deadlock\n", shown.stdout)
        self.assertFalse(self.home.exists(), "it leaves the user's sessions alone")


if __name__ == "__main__":
    unittest.main()
