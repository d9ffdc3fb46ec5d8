"""A flock ends when the kernel ends it: by an unlock of any sharer, or when the last one lets go, however it does."""

import errno
import signal
import subprocess
import time
import unittest

from harness import TracedTest, kernel_holders, wait_for_end, wait_until

RATE_ERROR = 0.001  # of the tracer's clock, as in hold_and_wait_times_test.py


class HoldEnds(TracedTest):
    def setUp(self):
        super().setUp()
        self.lock = self.file()
        self.play = self.stage()
        self.actor = self.play.root.spawn()
        self.actor.call(f"open {self.lock}")
        self.taken = self.actor.timed("flock 3 ex")

    def check_holders(self, *actors):
        """Report and kernel agree that these processes hold the lock, and no others do."""
        expected = {actor.pid for actor in actors}
        self.assertEqual(kernel_holders(self.play.pids, self.lock), expected)
        report = self.report()
        self.assertEqual(report.holders(self.lock), expected)
        return report

    def check_released(self, reason, by=None):
        """The one hold is over, for this reason."""
        report = self.check_holders()
        (released,) = report.events("lock_released")
        self.assertEqual(released["reason"], reason)
        if by is not None:
            self.assertEqual(released["pid"], by.pid)
        return released

    def check_ended_during(self, released, answer):
        """The hold ended within this call."""
        self.assertGreaterEqual(released["hold_ns"], (answer.before - self.taken.after) * (1 - RATE_ERROR))
        self.assertLessEqual(released["hold_ns"], (answer.after - self.taken.before) * (1 + RATE_ERROR))

    def test_unlock(self):
        self.check_holders(self.actor)
        answer = self.actor.timed("flock 3 un")
        self.check_ended_during(self.check_released("unlock", self.actor), answer)

    def test_close(self):
        answer = self.actor.timed("close 3")
        self.check_ended_during(self.check_released("close", self.actor), answer)

    def test_close_range(self):
        answer = self.actor.timed("close_range 3 5")
        self.check_ended_during(self.check_released("close"), answer)

    def test_close_of_a_stream(self):
        answer = self.actor.timed("fclose 3")
        self.check_ended_during(self.check_released("close"), answer)

    def test_stream_opened_on_another_file(self):
        answer = self.actor.timed("freopen 3 /dev/null")
        self.check_ended_during(self.check_released("close"), answer)

    def test_another_file_put_over_the_descriptor(self):
        for call in ("dup2 4 3", "dup3 4 3"):
            with self.subTest(call=call):
                stage = self.stage_of(call)
                self.assertEqual(stage, "close")

    def stage_of(self, call):
        """In a fresh process: takes a lock on 3, has another file on 4, makes the call; why did the hold end?"""
        lock = self.file(call.replace(" ", "_"))
        actor = self.play.root.spawn()
        actor.call(f"open {lock}")
        actor.call(f"open {self.file('other')}")
        actor.call("flock 3 ex")
        actor.call(call)
        report = self.report()
        self.assertEqual(kernel_holders([actor.pid], lock), set())
        self.assertEqual(report.holders(lock), set())
        ((reason, _),) = report.releases(actor.pid)
        return reason

    def test_close_of_one_of_two_descriptors_ends_nothing(self):
        for copy in ("dup 3", "dup2 3 20", "dup3 3 21", "dupfd 3 30", "dupfd 3 40 cloexec"):
            with self.subTest(copy=copy):
                number = self.actor.call(copy)
                self.actor.call("close 3")
                self.check_holders(self.actor)
                self.assertEqual(self.actor.call(f"dup2 {number} 3"), 3)
                self.actor.call(f"close {number}")
                self.check_holders(self.actor)
        self.actor.call("close 3")
        self.check_released("close")

    def test_close_of_another_description_of_the_file_ends_nothing(self):
        self.actor.call(f"open {self.lock}")
        self.actor.call("close 4")
        self.check_holders(self.actor)
        self.actor.finish()
        self.check_released("exit")

    def test_unlock_through_a_copy(self):
        copy = self.actor.call("dup 3")
        answer = self.actor.timed(f"flock {copy} un")
        self.check_ended_during(self.check_released("unlock", self.actor), answer)

    def test_exits(self):
        for call, reasons in {"exit 0": ["exit"], "_exit 3": ["exit"], "quick_exit 0": ["exit"],
                              "abort": ["exit", "killed"]}.items():
            with self.subTest(call=call):
                lock = self.file(call.split()[0])
                actor = self.play.root.spawn()
                actor.call(f"open {lock}")
                actor.call("flock 3 ex")
                actor.finish(call)
                report = self.report()
                self.assertEqual(report.holders(lock), set())
                ((reason, _),) = report.releases(actor.pid)
                self.assertIn(reason, reasons)

    def test_child_keeps_it_when_the_taker_closes(self):
        child = self.actor.fork()
        self.check_holders(self.actor, child)
        self.actor.call("close 3")
        report = self.check_holders(child)
        self.assertEqual(report.held[0]["acquired_by"]["pid"], self.actor.pid)
        answer = child.timed("close 3")
        self.check_ended_during(self.check_released("close"), answer)

    def test_child_keeps_it_when_the_taker_exits(self):
        child = self.actor.fork()
        self.actor.finish()
        self.check_holders(child)
        child.finish()
        self.check_released("exit")

    def test_child_unlocks_it_for_both(self):
        child = self.actor.fork()
        answer = child.timed("flock 3 un")
        self.check_ended_during(self.check_released("unlock"), answer)

    def test_child_that_exits_ends_nothing(self):
        child = self.actor.fork()
        child.finish()
        self.check_holders(self.actor)
        self.actor.call("flock 3 un")
        self.check_released("unlock", self.actor)

    def test_grandchild_by_new_program_image_keeps_it(self):
        for how in ("spawn", "vspawn"):
            with self.subTest(how=how):
                child = self.actor.spawn(how)
                self.check_holders(self.actor, child)
                child.finish()
                self.check_holders(self.actor)

    def test_child_started_before_the_lock_was_taken_shares_it(self):
        for how in ("fork", "spawn", "vspawn"):
            with self.subTest(how):
                lock = self.file(how)
                actor = self.play.root.spawn()
                actor.call(f"open {lock}")
                child = actor.spawn(how)
                actor.call("flock 3 ex")
                expected = {actor.pid, child.pid}
                self.assertEqual(kernel_holders(self.play.pids, lock), expected)
                wait_until("both are told", lambda: self.report().holders(lock) == expected)
                actor.call("close 3")
                self.assertEqual(self.report().holders(lock), {child.pid})

    def test_exec_keeps_it(self):
        self.actor = self.actor.exec()
        self.check_holders(self.actor)
        answer = self.actor.timed("close 3")
        self.check_ended_during(self.check_released("close", self.actor), answer)

    def test_exec_hands_on_many(self):
        others = [self.file(f"other{i}") for i in range(120)]
        for fd, other in enumerate(others, start=4):
            self.assertEqual(self.actor.call(f"open {other}"), fd)
            self.actor.call(f"flock {fd} ex")
        self.actor = self.actor.exec()
        self.check_holders(self.actor)
        answer = self.actor.timed("close 3")
        self.check_ended_during(self.check_released("close", self.actor), answer)

    def test_exec_ends_it_on_a_close_on_exec_descriptor(self):
        self.actor.call("dup3 3 9")
        self.actor.call("close 3")
        self.check_holders(self.actor)
        self.actor.exec()
        self.check_released("exec")

    def test_exec_that_fails_ends_nothing(self):
        self.actor.call("dup3 3 9")
        self.actor.call("close 3")
        self.assertEqual(self.actor.fails("failing_exec"), errno.ENOENT)
        self.check_holders(self.actor)

    def test_conversion_is_a_new_hold(self):
        self.actor.call("flock 3 sh")
        self.check_holders(self.actor)
        self.actor.call("flock 3 un")
        report = self.check_holders()
        self.assertEqual([reason for reason, _ in report.releases(self.actor.pid)], ["converted", "unlock"])
        self.assertEqual(report.lock_of(self.lock)["acquisitions"], 2)

    def test_upgrade_that_is_refused_loses_the_shared_lock(self):
        self.actor.call("flock 3 sh")
        other = self.play.root.spawn()
        other.call(f"open {self.lock}")
        other.call("flock 3 sh")
        self.assertEqual(self.actor.fails("flock 3 ex nb"), errno.EAGAIN)
        report = self.check_holders(other)
        self.assertEqual([reason for reason, _ in report.releases(self.actor.pid)], ["converted", "lost"])


class Killed(TracedTest):
    def test_hold_ends_at_the_moment_of_death_and_nothing_published_is_lost(self):
        lock = self.file()
        stage = self.stage()
        victim, next_one = stage.cast(2)
        for actor in (victim, next_one):
            actor.call(f"open {lock}")
        for _ in range(200):
            victim.call("flock 3 sh")
            victim.call("flock 3 un")
        taken = victim.timed("flock 3 ex")
        next_one.block("flock 3 ex", lock)
        before = time.monotonic_ns()
        victim.kill()
        next_one.end()
        stage.close()
        report = self.report()
        self.assertEqual(len(report.events("lock_acquired", pid=victim.pid)), 201)
        *_, (reason, hold_ns) = report.releases(victim.pid)
        self.assertEqual(reason, "killed")
        self.assertGreaterEqual(hold_ns, (before - taken.after) * (1 - RATE_ERROR))
        (acquired,) = report.events("lock_acquired", pid=next_one.pid)
        self.assertLessEqual(report.events("lock_released", pid=victim.pid)[-1]["t_ns"], acquired["t_ns"])
        (found,) = report.findings("killed_while_holding")
        self.assertIn(victim.pid, [who["pid"] for who in found["participants"]])

    def test_without_a_waiter_the_supervisor_knows_when(self):
        lock = self.file()
        stage = self.stage()
        victim = stage.root.spawn()
        victim.call(f"open {lock}")
        taken = victim.timed("flock 3 ex")
        before = time.monotonic_ns()
        victim.kill()
        stage.close()  # which ends the supervisor too
        after = time.monotonic_ns()
        ((reason, hold_ns),) = self.report().releases(victim.pid)
        self.assertEqual(reason, "killed")
        self.assertGreaterEqual(hold_ns, (before - taken.after) * (1 - RATE_ERROR))
        self.assertLessEqual(hold_ns, (after - taken.before) * (1 + RATE_ERROR))

    def test_a_sharer_holds_on(self):
        lock = self.file()
        stage = self.stage()
        victim = stage.root.spawn()
        victim.call(f"open {lock}")
        victim.call("flock 3 ex")
        child = victim.fork()
        victim.kill()
        self.assertEqual(kernel_holders(stage.pids, lock), {child.pid})
        report = self.report()
        self.assertEqual(report.holders(lock), {child.pid})
        self.assertEqual(report.held[0]["acquired_by"]["pid"], victim.pid)
        child.kill()
        stage.close()
        ((reason, _),) = [(entry["reason"], entry) for entry in self.report().events("lock_released")]
        self.assertEqual(reason, "killed")

    def test_a_waiter_that_is_killed_holds_nothing(self):
        lock = self.file()
        stage = self.stage()
        holder, victim = stage.cast(2)
        for actor in (holder, victim):
            actor.call(f"open {lock}")
        holder.call("flock 3 ex")
        victim.block("flock 3 ex", lock)
        victim.kill()
        wait_for_end(victim.pid)
        report = self.report()
        self.assertEqual(report.holders(lock), {holder.pid})
        self.assertEqual(report.events("lock_acquired", pid=victim.pid), [])
        stage.close()
        self.assertEqual(self.report().findings("killed_while_holding"), [])


class WhoStartedTheRun(TracedTest):
    """planloop and the shell above it share what is open there. Neither is traced, so no exit of theirs is recorded."""

    def test_is_not_said_to_have_been_killed_when_it_ended(self):
        lock = self.file()
        script = 'trap "exit 0" USR1; exec 9>"$0" 8<&0; "$@" <&8 8<&- & exec 8<&-; wait $!'
        work = self.traced_command(["sh", "-c", "flock 9; exec 9>&-; echo; read _"])
        for before_the_run_ends in (True, False):
            with self.subTest(before_the_run_ends=before_the_run_ends):
                shell = subprocess.Popen(
                    ["bash", "-c", script, str(lock), *work],
                    env=self.environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                shell.stdout.readline()
                self.assertIn(shell.pid, self.report().holders(lock))
                if before_the_run_ends:
                    shell.send_signal(signal.SIGUSR1)
                    wait_for_end(shell.pid)
                shell.stdin.close()
                shell.stdout.read()  # planloop has it too
                shell.wait()
                shell.stdout.close()
                report = self.report()
                self.assertEqual(report.findings(), [])
                self.assertEqual({entry["reason"] for entry in report.events("lock_released")}, {"exit"})


if __name__ == "__main__":
    unittest.main()
