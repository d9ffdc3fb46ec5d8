"""Circular waits among flock callers are named, with exactly their participants; what only looks alike is not."""

import errno
import json
import os
import signal
import subprocess
import unittest

from harness import FAMILIES, LOCK_CALLS, PATIENCE_S, TracedTest, kernel_locks, wait_until


class Rings(TracedTest):
    def ring(self, size, families=("flock",)):
        """So many processes, each holding one lock and blocked on the next one's; its families take turns."""
        stage = self.stage()
        actors = stage.cast(size)
        self.files = [self.file(f"lock{place}") for place in range(size)]
        for place, actor in enumerate(actors):
            actor.call(f"open {self.files[place]}")
            actor.call(f"open {self.files[(place + 1) % size]}")
            actor.call(LOCK_CALLS[families[place % len(families)]].format(3))
        for place, actor in enumerate(actors):
            following = (place + 1) % size
            actor.block(LOCK_CALLS[families[following % len(families)]].format(4), self.files[following])
        return stage, actors

    def the_deadlock(self, actors):
        report = self.report()
        (deadlock,) = report.findings("deadlock")
        self.assertEqual(sorted(who["pid"] for who in deadlock["participants"]), sorted(actor.pid for actor in actors))
        self.assertEqual(deadlock["severity"], "error")
        self.assertEqual(deadlock["certainty"], "confirmed")
        by_pid = {who["pid"]: who for who in deadlock["participants"]}
        for place, actor in enumerate(actors):
            following = actors[(place + 1) % len(actors)]
            who = by_pid[actor.pid]
            self.assertEqual(who["tid"], actor.tid)
            self.assertEqual(who["waits_on"], [following.pid])
            self.assertEqual(who["holds"], [report.lock_of(self.files[place])["id"]])
            self.assertEqual(who["waits_for"], report.lock_of(self.files[(place + 1) % len(actors)])["id"])
        return deadlock

    def check_ring(self, size, families=("flock",)):
        stage, actors = self.ring(size, families)
        self.assertIsNone(self.the_deadlock(actors)["resolved_by"], "it is in force")
        actors[0].kill()
        for place in range(size - 1, 0, -1):
            actors[place].end()
            actors[place].finish()
        stage.close()
        after = self.the_deadlock(actors)
        self.assertIn(str(actors[0].pid), after["resolved_by"])
        (killed,) = self.report().findings("killed_while_holding")
        self.assertIn(actors[0].pid, [who["pid"] for who in killed["participants"]])

    def test_ring_of_2(self):
        self.check_ring(2)

    def test_ring_of_3(self):
        self.check_ring(3)

    def test_ring_of_13_which_is_past_what_the_kernel_looks_at(self):
        self.check_ring(13)

    def test_ring_of_64(self):
        self.check_ring(64)

    def test_rings_of_ofd_locks(self):
        for size in (2, 3, 13, 64):
            with self.subTest(size=size):
                self.session = f"ofd{size}"
                self.check_ring(size, ["ofd"])

    def test_ring_of_13_posix_locks_which_the_kernel_misses(self):
        self.check_ring(13, ["posix"])

    def test_rings_of_all_families(self):
        for size in (2, 3, 13, 64):
            with self.subTest(size=size):
                self.session = f"mixed{size}"
                self.check_ring(size, FAMILIES)

    def test_ring_resolved_by_an_alarm_says_so(self):
        stage, actors = self.ring(3)
        self.the_deadlock(actors)
        self.assertEqual(actors[1].interrupt(), errno.EINTR)
        actors[1].call("flock 3 un")
        actors[0].end()
        actors[0].call("flock 3 un")
        actors[2].end()
        stage.close()
        self.assertTrue(self.the_deadlock(actors)["resolved_by"])

    def test_the_text_says_deadlock_and_names_the_processes(self):
        stage, actors = self.ring(2)
        shown = self.planloop("dev", "locks", "--session", self.session)
        self.assertEqual(shown.returncode, 0)
        self.assertIn("deadlock", shown.stdout)
        for actor in actors:
            self.assertIn(str(actor.pid), shown.stdout)
        actors[0].kill()
        stage.close()

    def test_two_rings_in_one_session_are_two_findings(self):
        stages = []
        for _ in range(2):
            stage, actors = self.ring(2)
            actors[0].kill()
            stages.append(sorted(actor.pid for actor in actors))
            stage.close()
        found = [sorted(who["pid"] for who in each["participants"]) for each in self.report().findings("deadlock")]
        self.assertEqual(found, stages)

    def test_a_bystander_who_waits_for_the_ring_is_no_participant(self):
        stage, actors = self.ring(2)
        bystander = stage.root.spawn()
        bystander.call(f"open {self.files[0]}")
        bystander.block("flock 3 ex", self.files[0])
        self.the_deadlock(actors)
        actors[0].kill()
        stage.close()
        self.the_deadlock(actors)

    def test_one_process_that_waits_for_itself(self):
        lock = self.file()
        stage = self.stage()
        actor = stage.root.spawn()
        actor.call(f"open {lock}")
        actor.call(f"open {lock}")
        actor.call("flock 3 ex")
        actor.block("flock 4 ex", lock)
        report = self.report()
        (found,) = report.findings("self_deadlock")
        self.assertEqual([(who["pid"], who["tid"]) for who in found["participants"]], [(actor.pid, actor.tid)])
        self.assertEqual(report.findings("deadlock"), [])
        actor.kill()
        stage.close()

    def test_ring_of_threads(self):
        files = [self.file(name) for name in "ab"]
        stage = self.stage()
        process = stage.root.spawn()
        threads = [process, process.thread()]
        for place, thread in enumerate(threads):
            thread.own = thread.call(f"open {files[place]}")
            thread.next = thread.call(f"open {files[1 - place]}")
            thread.call(f"flock {thread.own} ex")
        for place, thread in enumerate(threads):
            thread.block(f"flock {thread.next} ex", files[1 - place])
        (found,) = self.report().findings("deadlock")
        self.assertEqual(sorted(who["tid"] for who in found["participants"]), sorted(thread.tid for thread in threads))
        process.kill()
        stage.close()


class Shells(TracedTest):
    """Scripts that hold through descriptors that their flock(1) left them."""

    def run_ring(self, size, script):
        """`script` is run in each: $1 its own lock, $2 the next one's, $3 a file to make once it has its own; it goes on
        when $4 is there. Returns pids by the command line's last word, as dev locks tells of them."""
        files = [self.file(f"lock{place}") for place in range(size)]
        ready = [self.folder / f"ready{place}" for place in range(size)]
        go = self.folder / "go"
        (self.folder / "script").write_text(script)
        everybody = "".join(
            f"bash script {files[place]} {files[(place + 1) % size]} {ready[place]} {go} &\n" for place in range(size)
        )
        run = subprocess.Popen(self.traced_command(["sh", "-c", everybody + "wait"]), env=self.environment, text=True,
                               cwd=self.folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               start_new_session=True)
        try:
            wait_until("all hold their own", lambda: all(path.exists() for path in ready))
            go.touch()
            for path in files:
                wait_until(f"somebody waits for {path}", lambda: any(lock.waits for lock in kernel_locks(path)))
            live = self.the_deadlock(size, files)
            os.kill(live["participants"][0]["pid"], signal.SIGKILL)
            run.communicate(timeout=PATIENCE_S)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            raise
        after = self.the_deadlock(size, files)
        self.assertEqual([who["pid"] for who in after["participants"]], [who["pid"] for who in live["participants"]])
        self.assertTrue(after["resolved_by"])

    def the_deadlock(self, size, files):
        report = self.report()
        (found,) = report.findings("deadlock")
        self.assertEqual(found["certainty"], "confirmed", found["summary"])
        self.assertEqual([who["process"] for who in found["participants"]], ["flock"] * size)
        self.assertEqual({who["waits_for"] for who in found["participants"]},
                         {report.lock_of(path)["id"] for path in files})
        for who in found["participants"]:
            self.assertIn("bash script", who["started_by"]["command_line"])
        return found

    def test_that_lock_a_descriptor_of_their_own(self):
        for size in (2, 3):
            with self.subTest(size=size):
                self.session = f"own{size}"
                self.run_ring(size, 'exec 9>>"$1"; flock 9; : >"$3"\n'
                                    'until [ -e "$4" ]; do sleep 0.01; done\nflock "$2" true; :\n')
                for path in self.folder.glob("[rg][eo]*"):
                    path.unlink()

    def test_that_hold_in_a_subshell(self):
        self.run_ring(13, '(flock 9; : >"$3"\n'
                          'until [ -e "$4" ]; do sleep 0.01; done\nflock "$2" true; :) 9>>"$1"; :\n')


class NoRing(TracedTest):
    """The negative twins."""

    def assert_silent(self):
        report = self.report()
        self.assertEqual(report.findings("deadlock") + report.findings("self_deadlock"), [])
        return report

    def test_30_processes_that_merely_contend(self):
        stage = self.stage()
        actors = stage.cast(30)
        lock = self.file()
        for actor in actors:
            actor.call(f"open {lock}")
        for actor in actors:
            actor.begin("flock 3 ex")
        left = list(actors)
        while left:
            winner = stage.first_answer(left)
            left.remove(winner)
            winner.call("flock 3 un")
        stage.close()
        self.assertEqual(self.assert_silent().lock_of(lock)["acquisitions"], 30)

    def test_200_processes_that_merely_contend(self):
        lock = self.file()
        run = self.traced("perl", "-e", "use Fcntl ':flock'; for (1 .. 200) { next if fork; open(my $f, '>>', $ARGV[0]);"
                          " for (1 .. 10) { flock($f, LOCK_EX) or die; flock($f, LOCK_UN) } exit 0 } 1 while wait != -1",
                          lock, timeout=2 * PATIENCE_S)
        self.assertEqual(run.returncode, 0, run.stderr)
        report = self.assert_silent()
        self.assertEqual(report.lock_of(lock)["acquisitions"], 2000)
        self.assertEqual([each["kind"] for each in report.findings() if each["severity"] != "info"], [])

    def test_locking_hand_over_hand(self):
        stage = self.stage()
        files = [self.file(name) for name in "abc"]
        actors = stage.cast(2)
        for actor in actors:
            for path in files:
                actor.call(f"open {path}")
            actor.call("flock 3 ex")
            for descriptor in (4, 5):
                actor.call(f"flock {descriptor} ex")
                actor.call(f"flock {descriptor - 1} un")
            actor.call("flock 5 un")
        stage.close()
        self.assertEqual(self.assert_silent().findings("lock_order_inversion"), [])

    def test_a_mere_long_wait(self):
        stage = self.stage()
        lock = self.file()
        holder, waiter = stage.cast(2)
        for actor in (holder, waiter):
            actor.call(f"open {lock}")
        holder.call("flock 3 ex")
        waiter.block("flock 3 ex", lock)
        run = self.planloop("dev", "locks", "--session", self.session, "--json", "--long-wait", "0.001")
        kinds = {each["kind"] for each in json.loads(run.stdout)["findings"]}
        self.assertLessEqual(kinds, {"long_wait", "long_hold"})
        holder.call("flock 3 un")
        waiter.end()
        stage.close()
        self.assert_silent()

    def test_30_processes_that_contend_for_three_locks_in_one_order(self):
        program = self.folder / "worker"
        locks = [self.file(name) for name in "abc"]
        program.write_text(
            "import fcntl, sys\n"
            "files = [open(name) for name in sys.argv[1:]]\n"
            "for _ in range(20):\n"
            "    for file in files: fcntl.flock(file, fcntl.LOCK_EX)\n"
            "    for file in files: fcntl.flock(file, fcntl.LOCK_UN)\n"
        )
        words = " ".join(str(word) for word in (program, *locks))
        run = self.traced("sh", "-c", f"for i in $(seq 30); do /usr/bin/python3 {words} & done; wait", timeout=2 * PATIENCE_S)
        self.assertEqual(run.returncode, 0, run.stderr)
        report = self.assert_silent()
        self.assertEqual([report.lock_of(lock)["acquisitions"] for lock in locks], [600] * 3)

    def test_a_chain_without_an_end_that_closes_it(self):
        stage = self.stage()
        actors = stage.cast(4)
        files = [self.file(f"lock{place}") for place in range(5)]
        for place, actor in enumerate(actors):
            actor.call(f"open {files[place]}")
            actor.call(f"open {files[place + 1]}")
            actor.call("flock 3 ex")
        for place, actor in enumerate(actors[:-1]):
            actor.block("flock 4 ex", files[place + 1])
        self.assert_silent()
        actors[-1].call("flock 4 ex")
        for actor in reversed(actors):
            if actor is not actors[-1]:
                actor.end()
            actor.finish()
        stage.close()
        self.assert_silent()

    def test_opposite_orders_that_never_meet(self):
        stage = self.stage()
        files = [self.file(name) for name in "ab"]
        for actor, (first, second) in zip(stage.cast(2), (files, reversed(files))):
            actor.call(f"open {first}")
            actor.call(f"open {second}")
            for call in ("flock 3 ex", "flock 4 ex", "flock 4 un", "flock 3 un"):
                actor.call(call)
        stage.close()
        self.assert_silent()

    def ring_of_two(self, mode, asks):
        """Each holds one lock in this mode and asks for the other's; `asks` is told how."""
        stage = self.stage()
        files = [self.file(name) for name in "ab"]
        actors = stage.cast(2)
        for place, actor in enumerate(actors):
            actor.call(f"open {files[place]}")
            actor.call(f"open {files[1 - place]}")
            actor.call(f"flock 3 {mode}")
        for actor in actors:
            asks(actor)
        stage.close()

    def test_a_ring_of_tries_that_do_not_block(self):
        self.ring_of_two("ex", lambda actor: self.assertEqual(actor.fails("flock 4 ex nb"), errno.EAGAIN))
        self.assert_silent()

    def test_a_ring_of_shared_locks(self):
        self.ring_of_two("sh", lambda actor: actor.call("flock 4 sh"))
        self.assert_silent()

    def test_an_upgrade_is_no_wait_for_oneself(self):
        stage = self.stage()
        lock = self.file()
        stage.root.call(f"open {lock}")
        for mode in ("sh", "ex", "sh", "ex"):
            stage.root.call(f"flock 3 {mode}")
        stage.close()
        self.assert_silent()


if __name__ == "__main__":
    unittest.main()
