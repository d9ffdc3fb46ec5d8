"""POSIX and OFD record locks: whose they are, which bytes, and what ends them. The kernel's account is the measure."""

import errno
import os
import unittest

from harness import TracedTest, kernel_holds


class Owners(TracedTest):
    def setUp(self):
        super().setUp()
        self.lock = self.file()
        self.play = self.stage()
        self.actor = self.play.root.spawn()
        self.actor.call(f"open {self.lock}")

    def check(self, *actors):
        """Report and kernel agree on holders and ranges, and these processes are the holders."""
        report = self.report()
        self.assertEqual(report.holds(), kernel_holds(self.play.pids, [self.lock]))
        self.assertEqual({hold.pid for hold in report.holds()}, {actor.pid for actor in actors})
        return report

    def last_release(self, actor=None):
        return self.report().events("lock_released", **({"pid": actor.pid} if actor else {}))[-1]


class PosixOwners(Owners):
    def test_lock_and_unlock(self):
        self.actor.call("fcntl 3 setlkw wr 0 0")
        report = self.check(self.actor)
        self.assertEqual(report.lock_of(self.lock)["family"], "posix")
        self.actor.call("fcntl 3 setlk un 0 0")
        self.check()
        self.assertEqual(self.last_release()["reason"], "unlock")

    def test_close_of_any_descriptor_of_the_file_drops_all(self):
        hard_link = self.folder / "link"
        os.link(self.lock, hard_link)
        for name, make, close in (
            ("the same", "dup 3", "close 4"),
            ("another description", f"open {self.lock}", "close 4"),
            ("a hard link", f"open {hard_link} rdonly", "close 4"),
            ("by dup2 over it", f"open {self.lock}", "dup2 0 4"),
            ("by close_range", f"open {self.lock}", "close_range 4 9"),
            ("as a stream", f"open {self.lock}", "fclose 4"),
        ):
            with self.subTest(name):
                self.actor.call("fcntl 3 setlk wr 0 10")
                self.actor.call("fcntl 3 setlk rd 20 10")
                self.assertEqual(self.actor.call(make), 4)
                self.check(self.actor)
                self.actor.call(close)
                self.check()
                self.assertEqual(self.last_release()["reason"], "close")
                self.actor.begin("close 4")  # what dup2 left
                self.actor.end()

    def test_dup2_of_a_descriptor_onto_itself_drops_nothing(self):
        self.actor.call("fcntl 3 setlk wr 0 0")
        self.actor.call("dup2 3 3")
        self.check(self.actor)

    def test_close_of_another_file_drops_nothing(self):
        self.actor.call("fcntl 3 setlk wr 0 0")
        self.actor.call(f"open {self.file('other')}")
        self.actor.call("close 4")
        self.check(self.actor)

    def test_child_inherits_nothing_and_drops_nothing(self):
        self.actor.call("fcntl 3 setlk wr 0 0")
        child = self.actor.fork()
        self.check(self.actor)
        child.call("close 3")
        child.finish()
        self.check(self.actor)
        self.actor.finish()
        self.check()
        self.assertEqual(self.last_release()["reason"], "exit")

    def test_exec_keeps_it(self):
        self.actor.call("fcntl 3 setlk wr 0 0")
        self.actor = self.actor.exec()
        self.check(self.actor)
        self.actor.call("close 3")
        self.check()

    def test_exec_with_a_close_on_exec_descriptor_of_the_file_drops_it(self):
        self.actor.call("fcntl 3 setlk wr 0 0")
        self.actor.call(f"open {self.lock} cloexec")
        self.check(self.actor)
        self.actor = self.actor.exec()
        self.check()
        self.assertEqual(self.last_release()["reason"], "exec")

    def test_lockf_covers_from_the_file_position(self):
        self.actor.call("lseek 3 100")
        self.actor.call("lockf 3 lock 50")
        self.check(self.actor)
        (hold,) = self.report().holds()
        self.assertEqual((hold.start, hold.end), (100, 149))
        self.actor.call("lockf 3 ulock 50")
        self.check()

    def test_ranges_are_made_absolute(self):
        self.actor.call("truncate 3 1000")
        self.actor.call("lseek 3 200")
        for call, (start, end) in {
            "fcntl 3 setlk wr 10 5 cur": (210, 214),
            "fcntl 3 setlk wr -10 5 end": (990, 994),
            "fcntl 3 setlk wr 500 -20": (480, 499),
            "fcntl 3 setlk wr 700 0": (700, None),
        }.items():
            with self.subTest(call):
                self.actor.call(call)
                self.check(self.actor)
                self.assertIn((start, end), {(hold.start, hold.end) for hold in self.report().holds()})
                self.actor.call("fcntl 3 setlk un 0 0")

    def test_ranges_split_merge_and_change_mode(self):
        for call in (
            "wr 0 100", "un 40 20", "wr 40 20", "rd 10 10", "rd 90 20", "wr 5 200", "un 0 6", "rd 0 0", "un 50 1", "un 0 0",
        ):
            self.actor.call(f"fcntl 3 setlk {call}")
            report = self.report()
            self.assertEqual(report.holds(), kernel_holds(self.play.pids, [self.lock]), call)

    def test_waiting_for_an_overlapping_range_only(self):
        second, third = self.play.cast(2)
        for other in (second, third):
            other.call(f"open {self.lock}")
        self.actor.call("fcntl 3 setlk wr 0 10")
        second.call("fcntl 3 setlk wr 10 10")
        third.block("fcntl 3 setlkw rd 5 5", self.lock)
        report = self.check(self.actor, second)
        (waiting,) = report.waiting
        self.assertEqual((waiting["start"], waiting["len"]), (5, 5))
        self.assertEqual([blocker["pid"] for blocker in waiting["blocked_by"]], [self.actor.pid])
        self.actor.call("fcntl 3 setlk un 0 0")
        third.end()
        self.check(second, third)

    def test_getlk_is_no_lock_event(self):
        self.actor.call("fcntl 3 getlk wr 0 0")
        self.actor.call("fcntl 3 setlk wr 0 0")
        self.assertEqual(len(self.report().events("lock_requested")), 1)

    def test_failures_are_the_kernels_and_are_recorded(self):
        other = self.play.root.spawn()
        other.call(f"open {self.lock} rdonly")
        self.actor.call("fcntl 3 setlk wr 0 0")
        for call, error in {
            "fcntl 3 setlk rd 0 0": errno.EAGAIN,
            "fcntl 3 setlk wr 0 0": errno.EBADF,  # opened for reading
            "fcntl 77 setlk wr 0 0": errno.EBADF,
            "fcntl 77 setlk un 0 0": errno.EBADF,
            "fcntl 3 setlk rd -5 2": errno.EINVAL,
        }.items():
            with self.subTest(call):
                self.assertEqual(other.fails(call), error)
                failed = self.report().events("lock_failed", pid=other.pid)[-1]
                self.assertEqual(failed["errno"], error)
        self.check(self.actor)

    def test_the_kernels_own_refusal_of_a_ring(self):
        other = self.play.root.spawn()
        other.call(f"open {self.lock}")
        self.actor.call("fcntl 3 setlk wr 0 1")
        other.call("fcntl 3 setlk wr 1 1")
        other.block("fcntl 3 setlkw wr 0 1", self.lock)
        self.assertEqual(self.actor.fails("fcntl 3 setlkw wr 1 1"), errno.EDEADLK)
        report = self.report()
        (refused,) = report.findings("kernel_refused")
        self.assertIn(self.actor.pid, [who["pid"] for who in refused["participants"]])
        self.assertEqual(report.findings("deadlock"), [])


class OfdOwners(Owners):
    def test_shared_with_a_child_and_ended_by_the_last(self):
        self.actor.call("fcntl 3 ofd_setlkw wr 0 0")
        child = self.actor.fork()
        report = self.check(self.actor, child)
        self.assertEqual(report.lock_of(self.lock)["family"], "ofd")
        self.actor.call("close 3")
        self.check(child)
        child.call("close 3")
        self.check()

    def test_close_of_another_description_drops_nothing(self):
        self.actor.call("fcntl 3 ofd_setlk wr 0 10")
        self.actor.call(f"open {self.lock}")
        self.actor.call("close 4")
        self.check(self.actor)

    def test_two_descriptions_of_one_process_exclude_each_other(self):
        self.actor.call(f"open {self.lock}")
        self.actor.call("fcntl 3 ofd_setlk wr 0 10")
        self.assertEqual(self.actor.fails("fcntl 4 ofd_setlk wr 0 10"), errno.EAGAIN)
        self.check(self.actor)

    def test_conflicts_with_posix_even_in_one_process(self):
        self.actor.call("fcntl 3 ofd_setlk wr 0 10")
        self.actor.begin("fcntl 3 setlkw wr 0 10")
        waiting = self.wait_for_report(lambda report: report.waiting)
        self.assertEqual([blocker["pid"] for blocker in waiting.waiting[0]["blocked_by"]], [self.actor.pid])
        self.actor.kill()

    def wait_for_report(self, condition):
        from harness import wait_until

        return wait_until("the report shows it", lambda: (report := self.report()) and condition(report) and report)

    def test_flock_sees_neither(self):
        self.actor.call("fcntl 3 ofd_setlk wr 0 0")
        other = self.play.root.spawn()
        other.call(f"open {self.lock}")
        other.call("flock 3 ex nb")
        self.check(self.actor, other)

    def test_ring_of_13_across_families(self):
        """Longer than the kernel looks, and no two neighbours use the same kind of lock."""
        calls = ("flock {} ex", "fcntl {} setlkw wr 0 1", "fcntl {} ofd_setlkw wr 0 1")
        size = 13
        actors = self.play.cast(size)
        files = [self.file(f"lock{place}") for place in range(size)]
        for place, actor in enumerate(actors):
            actor.call(f"open {files[place]}")
            actor.call(f"open {files[(place + 1) % size]}")
            actor.call(calls[place % 3].format(3))
        for place, actor in enumerate(actors):
            following = (place + 1) % size
            actor.block(calls[following % 3].format(4), files[following])
        (deadlock,) = self.report().findings("deadlock")
        self.assertEqual(sorted(who["pid"] for who in deadlock["participants"]), sorted(actor.pid for actor in actors))
        actors[0].kill()


# The base class has no tests of its own, and its subclasses are found by name.
if __name__ == "__main__":
    unittest.main()
