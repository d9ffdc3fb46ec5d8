"""What is told while a program hangs, and what another terminal can see of a session that is being recorded."""

import json
import os
import random
import re
import select
import signal
import subprocess
import time
import unittest
from pathlib import Path

from harness import BINARY, LOCK_ACTOR, PATIENCE_S, PROGRAMS, TracedTest, kernel_locks, remove_while_written, wait_until

TOLD = re.compile(r"planloop: (self_)?deadlock \((confirmed|likely)\) since ")
HARD_S = float(os.environ.get("PLANLOOP_CONTENTION_SECONDS", "3"))

# Takes one or two locks at a time, always in one order, as fast as it can.
CONTENDERS = """
use Fcntl ':flock'; use Time::HiRes 'time';
my ($folder, $count, $seconds) = @ARGV;
my $end = time + $seconds;
for my $child (1 .. $count) {
    next if fork;
    srand($child);
    my @files = map { open(my $file, '>>', "$folder/contended$_") or die; $file } 0 .. 3;
    while (time < $end) {
        my ($one, $other) = sort { $a <=> $b } int(rand 4), int(rand 4);
        flock($files[$one], LOCK_EX) or die;
        flock($files[$other], LOCK_EX) or die if $other != $one;
        flock($files[$one], LOCK_UN);
        flock($files[$other], LOCK_UN) if $other != $one;
    }
    exit 0;
}
1 while wait != -1;
"""


class Live(TracedTest):
    def told(self, stage):
        """The next line that tells of a deadlock."""
        if not hasattr(stage, "said_so_far"):
            stage.said_so_far = b""
            os.set_blocking(stage.program.stderr.fileno(), False)
        while b"\n" not in stage.said_so_far:
            if not select.select([stage.program.stderr], [], [], PATIENCE_S)[0]:
                raise AssertionError(f"nothing is told, and this is known:\n{self.seen_from_outside(stage)}")
            said = os.read(stage.program.stderr.fileno(), 65536)
            if not said:
                raise AssertionError("the run ended instead of telling")
            stage.said_so_far += said
        line, _, stage.said_so_far = stage.said_so_far.partition(b"\n")
        return line.decode()

    def seen_from_outside(self, stage):
        """What others make of the recording, and what the supervisor's threads do."""
        seen = [self.planloop("dev", "locks", "--session", self.session, how).stdout for how in ("--summary", "--waiting")]
        for thread in Path(f"/proc/{stage.program.pid}/task").iterdir():
            seen += [f"{thread.name}: {(thread / name).read_text().strip()}" for name in ("wchan", "schedstat")]
        return "\n".join(seen)

    def rest(self, stage):
        os.set_blocking(stage.program.stderr.fileno(), True)
        return stage.said_so_far.decode() + stage.close()

    def test_a_hundred_rings_one_after_another_are_each_told_once(self):
        seed = random.randrange(1 << 30)
        print(f"seed {seed}")
        dice = random.Random(seed)
        stage = self.stage()
        actors = stage.cast(5)
        files = [self.file(f"lock{number}") for number in range(5)]
        for actor in actors:
            for file in files:
                actor.call(f"open {file}")
        for _ in range(100):
            ring = dice.sample(range(5), dice.randint(2, 4))
            rest = [place for place in range(5) if place not in ring]
            for place in ring:
                actors[place].call(f"flock {3 + place} ex")
            for place, following in zip(ring, ring[1:]):
                actors[place].block(f"flock {3 + following} ex", files[following])
            bystander = actors[rest[0]]
            bystander.block(f"flock {3 + ring[0]} ex", files[ring[0]])  # waits, and is in no circle
            actors[ring[-1]].begin(f"flock {3 + ring[0]} ex")
            line = self.told(stage)
            self.assertRegex(line, TOLD)
            named = {int(pid) for pid in re.findall(r"lock_actor (\d+) holds", line)}
            self.assertEqual(named, {actors[place].pid for place in ring}, line)
            # One look can miss lines: the list moves while it is read, and other programs lock, too.
            wait_until(
                "the program hangs while it is told",
                lambda: named <= {lock.pid for lock in kernel_locks() if lock.waits},
            )
            # One is interrupted, and the others go on one after another, backwards round the ring.
            actors[ring[-1]].interrupt()
            actors[ring[-1]].call(f"flock {3 + ring[-1]} un")
            for place, following in reversed(list(zip(ring, ring[1:]))):
                actors[place].end()
                actors[place].call(f"flock {3 + following} un")
                actors[place].call(f"flock {3 + place} un")
            bystander.end()
            bystander.call(f"flock {3 + ring[0]} un")
        said = self.rest(stage)
        self.assertNotRegex(said, TOLD, "each once, and nothing else")

    def test_another_circle_of_a_call_that_was_in_one_is_told(self):
        stage = self.stage()
        one, other = stage.cast(2)
        files = [self.file(name) for name in "abc"]
        for actor in (one, other):
            for file in files:
                actor.call(f"open {file}")
        one.call("flock 3 ex")
        one.call("flock 5 ex")
        other.call("flock 4 ex")
        one.block("flock 4 ex", files[1])  # for all the time
        for lock in (3, 5):
            other.block(f"flock {lock} ex", files[lock - 3])
            self.assertIn(f"holds {files[lock - 3]} and waits for {files[1]}", self.told(stage))
            other.interrupt()
        other.call("flock 4 un")
        one.end()
        self.assertNotRegex(self.rest(stage), TOLD)

    def test_a_circle_that_somebody_could_open_is_told_when_nobody_can_any_more(self):
        for last_words in ("close 3", "exit 0", None):
            with self.subTest(last_words=last_words):
                stage = self.stage()
                sharer, other = stage.cast(2)
                one, two = self.file("one"), self.file("two")
                sharer.call(f"open {one}")
                sharer.call("flock 3 ex")
                heir = sharer.fork()
                heir.call(f"open {two}")
                for file in (one, two):
                    other.call(f"open {file}")
                other.call("flock 4 ex")
                other.block("flock 3 ex", one)
                heir.block("flock 4 ex", two)  # closes it, and whoever took the first lock may yet let go of it
                wait_until("the circle is recorded", lambda: len(self.waiting_now()) == 2)
                self.assertFalse(select.select([stage.program.stderr], [], [], 0)[0], "it is not certain yet")
                if last_words is None:
                    sharer.kill()
                else:
                    sharer.begin(last_words)
                line = self.told(stage)
                self.assertRegex(line, TOLD)
                self.assertEqual({int(pid) for pid in re.findall(r"lock_actor (\d+) holds", line)}, {heir.pid, other.pid})
                heir.kill()
                other.end()
                self.assertNotRegex(self.rest(stage), TOLD)

    def test_hard_contention_is_no_deadlock(self):
        patience_s = PATIENCE_S + 4 * HARD_S
        run = self.traced("perl", "-e", CONTENDERS, self.folder, 200, HARD_S, timeout=patience_s)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertNotRegex(run.stderr, TOLD)
        locks = self.planloop("dev", "locks", "--session", self.session, "--json", "--limit", "1", timeout=patience_s)
        report = json.loads(locks.stdout)
        self.assertEqual([found for found in report["findings"] if "deadlock" in found["kind"]], [])

    def test_what_takes_long_to_read_holds_up_no_program_s_end(self):
        self.traced("flock", self.file(), "true")
        log = self.home / "sessions" / self.session / "logs" / "planloop.jsonl"

        def said_at_the_end(*options):
            command = [BINARY, "dev", "run", "--session", self.session, *options, "--", "sh", "-c", "date +%s.%N >$0; exit 3"]
            run = self.run_program([*command, self.folder / "end"], timeout=3 * PATIENCE_S)
            print(f"held up for {time.time() - float((self.folder / 'end').read_text()):.2f} s {options}")
            self.assertEqual(run.returncode, 3)
            return run.stderr

        hole = 1 << 30
        os.truncate(log, hole)
        while "takes longer than a run waits" not in (said := said_at_the_end()):
            self.assertIn("no deadlock", said)
            self.assertLess(hole, 1 << 36, "no machine reads that much in a second")
            hole *= 2
            os.truncate(log, hole)
        # Whoever wants the verdict as a status waits for it.
        self.assertIn("no deadlock", said_at_the_end("--fail-on=deadlock"))

    def test_on_deadlock_terminate_ends_the_programs(self):
        script = 'flock a sh -c "echo >p; read x <q; flock b true" & flock b sh -c "read x <p; echo >q; flock a true" & wait'
        for name in ("p", "q"):
            os.mkfifo(self.folder / name)
        command = [BINARY, "dev", "run", "--session", self.session, "--on-deadlock", "terminate", "--", "sh", "-c", script]
        run = self.run_program(command, cwd=self.folder)
        self.assertRegex(run.stderr, TOLD)
        self.assertNotEqual(run.returncode, 0)
        self.assertEqual([lock for name in "ab" for lock in kernel_locks(self.folder / name)], [])

    def test_a_program_that_ends_well_in_spite_of_it_fails_the_run(self):
        script = 'trap "" TERM; flock a sh -c "echo >p; read x <q; flock b true" & flock b sh -c "read x <p; echo >q; flock a true" & wait; wait; exit 0'
        for name in ("p", "q"):
            os.mkfifo(self.folder / name)
        command = [BINARY, "dev", "run", "--session", self.session, "--on-deadlock=terminate", "--", "sh", "-c", script]
        self.assertNotEqual(self.run_program(command, cwd=self.folder).returncode, 0)

    def blocked_pair(self):
        """One holds, two wait, in this order."""
        stage = self.stage()
        holder, first, second = stage.cast(3)
        lock = self.file()
        for actor in (holder, first, second):
            actor.call(f"open {lock}")
        holder.call("flock 3 ex")
        first.block("flock 3 ex", lock)
        second.block("flock 3 ex", lock)
        return stage, holder, first, second, lock

    def waiting_now(self):
        run = self.planloop("dev", "locks", "--session", self.session, "--waiting", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)["waiting"]

    def test_waiting_shows_the_present_waiters_in_order(self):
        stage, holder, first, second, lock = self.blocked_pair()
        rows = wait_until("both are shown", lambda: (rows := self.waiting_now()) and len(rows) == 2 and rows)
        self.assertEqual([(row["pid"], row["position"]) for row in rows], [(first.pid, 1), (second.pid, 2)])
        self.assertEqual({row["path"] for row in rows}, {str(lock)})
        for row in rows:
            self.assertEqual([blocker["pid"] for blocker in row["blocked_by"]], [holder.pid])
            self.assertGreater(row["waited_ns"], 0)
        text = self.planloop("dev", "locks", "--session", self.session, "--waiting").stdout
        self.assertRegex(text, rf"(?s){lock}\n  1\. lock_actor {first.pid} for .*\n  2\. lock_actor {second.pid} for ")
        # Also once nobody supervises any more.
        os.kill(stage.program.pid, signal.SIGKILL)
        stage.program.wait()
        self.assertEqual(len(self.waiting_now()), 2)
        holder.call("flock 3 un")
        winner = stage.first_answer([first, second])
        winner.call("flock 3 un")
        (second if winner is first else first).end()
        self.assertEqual(self.waiting_now(), [])

    def follow(self, *options, **more):
        command = [BINARY, "dev", "locks", "--session", self.session, "--follow", *options]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_follow_writes_lines_as_they_happen_and_ends_with_the_session(self):
        stage, holder, first, second, _ = self.blocked_pair()
        following = self.follow("--json")
        seen = []
        while sum(line["event"] == "lock_requested" for line in seen) < 3:  # while the two are blocked
            seen.append(json.loads(following.stdout.readline()))
        holder.call("flock 3 un")
        winner = stage.first_answer([first, second])
        winner.call("flock 3 un")
        (second if winner is first else first).end()
        stage.close()
        seen += [json.loads(line) for line in following.stdout]
        self.assertEqual(following.wait(PATIENCE_S), 0, following.stderr.read())
        self.assertEqual(following.stderr.read(), "")
        key = lambda line: (line["lock_entry_id"], line["event"])
        self.assertEqual([key(line) for line in seen], [key(line) for line in self.report().timeline])

    def test_follow_goes_on_after_the_supervisor_died(self):
        stage, holder, first, second, _ = self.blocked_pair()
        following = self.follow("--json")
        following.stdout.readline()
        os.kill(stage.program.pid, signal.SIGKILL)
        stage.program.wait()
        holder.call("flock 3 un")
        winner = stage.first_answer([first, second])
        winner.call("flock 3 un")
        (second if winner is first else first).end()
        for actor in stage.actors:
            actor.kill()
        events = [json.loads(line)["event"] for line in following.stdout]
        self.assertEqual(following.wait(PATIENCE_S), 0, following.stderr.read())
        self.assertEqual([events.count(each) for each in ("lock_acquired", "lock_released")], [3, 3])

    def test_follow_ends_in_peace_when_interrupted(self):
        stage, holder, *_ = self.blocked_pair()
        following = self.follow()
        self.assertIn("lock_requested", following.stdout.readline())
        following.send_signal(signal.SIGINT)
        rest = following.stdout.read()
        self.assertEqual(following.wait(PATIENCE_S), 0)
        self.assertIn("Verdict: no deadlock", rest)
        for actor in stage.actors:
            actor.kill()

    def test_follow_of_a_busy_session_loses_nothing(self):
        program = subprocess.Popen(
            self.traced_command(["perl", "-e", CONTENDERS, self.folder, 8, 0.15]), env=self.environment, stderr=subprocess.PIPE
        )
        wait_until("there is a spool", lambda: self.spools)
        following = self.follow("--json")
        lines = [json.loads(line) for line in following.stdout]
        program.communicate()
        self.assertEqual(following.wait(PATIENCE_S), 0)
        wanted = {(line["lock_entry_id"], line["event"]) for line in self.report().timeline}
        got = [(line["lock_entry_id"], line["event"]) for line in lines]
        self.assertEqual(len(got), len(set(got)), "nothing twice")
        self.assertEqual(set(got), wanted)

    def test_follow_waits_for_a_program_that_is_about_to_lock(self):
        """The spool is there before anybody records into it, on a busy machine for a while."""
        os.mkfifo(self.folder / "go")
        slowly = ["strace", "-o", os.devnull, "-e", "trace=epoll_create1", "-e", "inject=epoll_create1:delay_enter=1000000"]
        program = subprocess.Popen(
            [*slowly, *self.traced_command(["sh", "-c", "read x <go; flock lock true"])],
            env=self.environment, cwd=self.folder, stderr=subprocess.PIPE)
        wait_until("there is a spool", lambda: self.spools)
        following = self.follow("--json")

        def pauses():
            status = Path(f"/proc/{following.pid}/status").read_text()
            return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])

        wait_until("it looks and looks", lambda: following.poll() is not None or pauses() > 40)
        (self.folder / "go").write_text("go\n")
        self.assertEqual([json.loads(line)["event"] for line in following.stdout],
                         ["lock_requested", "lock_acquired", "lock_released"])
        self.assertEqual(following.wait(PATIENCE_S), 0)
        program.communicate()

    def test_a_reader_that_goes_away_is_no_news(self):
        self.traced("perl", "-e", CONTENDERS, self.folder, 2, 0.3)
        for options in ("", "--follow", "--json", "--follow --json"):
            script = f"{BINARY} dev locks --session {self.session} {options} | head -n 1"
            run = self.run_program(["bash", "-c", f"set -o pipefail; {script}; exit 0"])
            self.assertEqual(run.stderr, "", options)
            # Its status is that of any filter: ended by the signal, or as a shell would tell of that.
            gone, write = os.pipe()
            os.close(gone)
            command = f"{BINARY} dev locks --session {self.session} {options}"
            for shell, status in ((f"exec {command}", -signal.SIGPIPE), (f"trap '' PIPE; exec {command}", 128 + signal.SIGPIPE)):
                run = subprocess.run(["sh", "-c", shell], env=self.environment, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE_S)
                self.assertEqual((run.returncode, run.stderr), (status, b""), shell)
            os.close(write)

    def test_a_session_that_vanishes_does_not_concern_the_program(self):
        session = self.home / "sessions" / self.session  # where files are made while rm is at it, hence rm again
        script = 'until rm -rf "$0" 2>/dev/null; do :; done; flock lock true && exit 3'
        run = self.traced("sh", "-c", script, session, cwd=self.folder)
        self.assertEqual(run.returncode, 3)
        self.assertTrue(run.stderr.startswith("planloop: "), run.stderr)

    def test_follow_of_a_session_that_vanishes_ends(self):
        stage, *_ = self.blocked_pair()
        following = self.follow("--json")
        following.stdout.readline()
        remove_while_written(self.home / "sessions" / self.session)
        for actor in stage.actors:
            actor.kill()
        stage.program.wait()
        following.stdout.read()
        self.assertEqual(following.wait(PATIENCE_S), 0, following.stderr.read())

    def test_tables_fit_a_narrow_terminal(self):
        self.traced("perl", "-e", CONTENDERS, self.folder, 4, 0.3)
        for columns in (40, 60, 80, 132):
            text = self.run_program(
                [BINARY, "dev", "locks", "--session", self.session, "--summary"],
                env={**self.environment, "COLUMNS": str(columns)},
            ).stdout
            self.assertIn("Who made others wait", text)
            long = [line for line in text.splitlines() if len(line) > columns and " " in line.strip()]
            self.assertEqual(long, [], columns)


if __name__ == "__main__":
    unittest.main()
