"""Times in the report against times that the programs measured around the same calls."""

import time
import unittest

from harness import TracedTest

HOLD_NS = 50_000_000
# The tracer's clock is a counter whose rate is measured over the life of the recording.
RATE_ERROR = 0.001


class HoldAndWaitTimes(TracedTest):
    def test_a_hold_lies_between_what_its_program_measured_inside_and_outside(self):
        lock = self.file()
        actor = self.stage().root
        actor.call(f"open {lock}")
        rounds = []
        for hold in (HOLD_NS, 0, HOLD_NS // 5):
            taken = actor.timed("flock 3 ex")
            actor.call(f"hold {hold}")
            given = actor.timed("flock 3 un")
            rounds.append((given.before - taken.after, given.after - taken.before))
        actor.stage.close()
        holds = [hold for reason, hold in self.report().releases(actor.pid) if reason == "unlock"]
        self.assertEqual(len(holds), len(rounds))
        for hold, (inside, outside) in zip(holds, rounds):
            self.assertGreaterEqual(hold, inside * (1 - RATE_ERROR))
            self.assertLessEqual(hold, outside * (1 + RATE_ERROR))
        self.assertGreaterEqual(holds[0], HOLD_NS)

    def test_a_wait_is_what_the_blocked_call_took_and_names_who_stood_in_its_way(self):
        lock = self.file()
        stage = self.stage()
        holder, waiter = stage.cast(2)
        for actor in (holder, waiter):
            actor.call(f"open {lock}")
        holder.call("flock 3 ex")
        waiter.block("flock 3 ex", lock)
        blocked = time.monotonic_ns()
        holder.call(f"hold {HOLD_NS}")
        given = holder.timed("flock 3 un")
        taken = waiter.end()
        stage.close()

        report = self.report()
        (acquired,) = report.events("lock_acquired", pid=waiter.pid)
        self.assertGreaterEqual(acquired["wait_ns"], HOLD_NS)
        self.assertGreaterEqual(acquired["wait_ns"], (given.before - blocked) * (1 - RATE_ERROR))
        self.assertLessEqual(acquired["wait_ns"], (taken.after - taken.before) * (1 + RATE_ERROR))
        (blocker,) = acquired["blocked_by"]
        self.assertEqual((blocker["pid"], blocker["tid"]), (holder.pid, holder.tid))
        self.assertGreaterEqual(blocker["ns"], HOLD_NS)
        self.assertLessEqual(blocker["ns"], acquired["wait_ns"])

        (released,) = report.events("lock_released", pid=holder.pid)
        self.assertLessEqual(released["t_ns"], acquired["t_ns"], "nobody has a lock before its holder let go")
        row = report.lock_of(lock)
        self.assertEqual((row["acquisitions"], row["contended"], row["failed"]), (2, 1, 0))
        self.assertEqual(row["wait_ns"]["max"], acquired["wait_ns"])
        self.assertEqual(row["hold_ns"]["total"], sum(hold for pid in (holder.pid, waiter.pid)
                                                      for _, hold in report.releases(pid)))

    def test_shared_holders_all_stand_in_the_way_of_a_writer_and_of_no_reader(self):
        lock = self.file()
        stage = self.stage()
        first, second, reader, writer = stage.cast(4)
        for actor in (first, second, reader, writer):
            actor.call(f"open {lock}")
        first.call("flock 3 sh")
        second.call("flock 3 sh")
        writer.block("flock 3 ex", lock)
        reader.call("flock 3 sh")
        for actor in (reader, first, second):
            actor.call("flock 3 un")
        writer.end()
        stage.close()
        report = self.report()
        (acquired,) = report.events("lock_acquired", pid=writer.pid)
        self.assertEqual({blocker["pid"] for blocker in acquired["blocked_by"]}, {first.pid, second.pid, reader.pid})
        for actor in (first, second, reader):
            (acquired,) = report.events("lock_acquired", pid=actor.pid)
            self.assertEqual((acquired["blocked_by"], acquired["mode"]), ([], "shared"))

    def test_a_queue_of_waiters_is_blocked_by_each_holder_in_turn(self):
        lock = self.file()
        stage = self.stage()
        queue = stage.cast(5)
        for actor in queue:
            actor.call(f"open {lock}")
        queue[0].call("flock 3 ex")
        for actor in queue[1:]:
            actor.block("flock 3 ex", lock)
        # The kernel wakes all waiters of a flock and lets them race: who has it answers first.
        order, left = [queue[0]], list(queue[1:])
        while left:
            order[-1].call("flock 3 un")
            winner = stage.first_answer(left)
            left.remove(winner)
            order.append(winner)
        stage.close()
        report = self.report()
        for place, actor in enumerate(order):
            (acquired,) = report.events("lock_acquired", pid=actor.pid)
            blockers = {blocker["pid"] for blocker in acquired["blocked_by"]}
            self.assertEqual(blockers, {earlier.pid for earlier in order[:place]})
        self.assertEqual(report.findings("deadlock"), [])

    def test_what_goes_on_now_is_shown_while_it_goes_on(self):
        lock = self.file()
        stage = self.stage()
        holder, waiter = stage.cast(2)
        for actor in (holder, waiter):
            actor.call(f"open {lock}")
        holder.call("flock 3 sh")
        waiter.block("flock 3 ex", lock)
        report = self.report()
        (held,) = report.held
        self.assertEqual((held["pid"], held["mode"]), (holder.pid, "shared"))
        self.assertEqual([each["pid"] for each in held["holders"]], [holder.pid])
        self.assertEqual(held["acquired_by"]["pid"], holder.pid)
        (waiting,) = report.waiting
        self.assertEqual((waiting["pid"], waiting["mode"]), (waiter.pid, "exclusive"))
        self.assertEqual([each["pid"] for each in waiting["blocked_by"]], [holder.pid])
        self.assertLess(held["since_ns"], waiting["since_ns"])
        holder.call("flock 3 un")
        waiter.end()
        report = self.report()
        self.assertEqual([held["pid"] for held in report.held], [waiter.pid])
        self.assertEqual(report.waiting, [])

    def test_threads_are_told_apart(self):
        lock = self.file()
        stage = self.stage()
        first = stage.root
        second = first.thread()
        first.call(f"open {lock}")
        second.call(f"open {lock}")
        first.call("flock 3 ex")
        second.block("flock 4 ex", lock)
        first.call("flock 3 un")
        second.end()
        stage.close()
        (acquired,) = self.report().events("lock_acquired", tid=second.tid)
        self.assertEqual(acquired["pid"], first.pid)
        self.assertEqual([blocker["tid"] for blocker in acquired["blocked_by"]], [first.tid])


if __name__ == "__main__":
    unittest.main()
