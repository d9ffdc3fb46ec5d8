"""Each way to take, share, convert and lose a file lock (tests/support/lock_plays.py), against the kernel's account.

After each step of a play, /proc/PID/fdinfo of its processes says who holds what, and the report must say the same. A
reading of fdinfo stands between two lock calls of a witness, which is traced too: so the recording itself says when it
was, by its own clock. In the end each hold must have begun and ended between the readings between which the kernel's
did. Those that were made while everybody stood still count exactly; for those made while a call was under way, and for
deaths, which nobody but the supervisor sees, 10 ms are allowed: a process may be taken off its processor between its
record and its call, so a play that fails by that alone gets another chance.
"""

import itertools
import os
import re
import select
import signal
import time
import unittest
from dataclasses import dataclass

import lock_plays
from harness import PATIENCE_S, TracedTest, kernel_holds, kernel_locks, wait_until

TOLERANCE_NS = 10_000_000
CHANCES = 5
ENDS = ("kill", "exit", "_exit", "quick_exit", "abort")
MAKES_A_CHILD = ("fork", "clone", "sys_fork", "sys_clone", "sys_clone3", "spawn", "vspawn", "spawn_moving", "clone_vm")


@dataclass
class Reading:
    """Of the kernel's account."""

    number: int  # of the witness's holds
    held: frozenset  # lock_entry_id of what report and kernel agreed was held
    step: str
    stands: bool = True  # while it was read, nothing else happened


@dataclass
class Span:
    """A hold, in the recording's time."""

    begin: int
    end: float  # infinity: it was not over when the recording was

    def shifted(self, begin=0, end=0):
        return Span(self.begin + begin, self.end + end)


def spans_of(report):
    """By file: the holds of it, by lock_entry_id."""
    spans = {row["path"]: {} for row in report.locks}
    paths = {row["id"]: row["path"] for row in report.locks}
    for event in report.timeline:
        of_file = spans[paths[event["lock"]]]
        if event["event"] == "lock_acquired":
            of_file[event["lock_entry_id"]] = Span(event["t_ns"], float("inf"))
        elif event["event"] == "lock_released":
            of_file[event["lock_entry_id"]].end = event["t_ns"]
    return spans


def faults_of(spans, readings, times, early_ns=0, late_ns=0):
    """What is wrong with the spans of a file's holds. `times`: from when to when each reading was; `early_ns`, `late_ns`:
    how much earlier or later than the kernel's a recorded begin or end may be."""
    faults = [f"{entry} was never seen" for entry in spans if not any(entry in reading.held for reading in readings)]
    last = readings[0]
    for reading in readings[1:]:
        since, until = times[last.number][1], times[reading.number][0]
        moments = [("begins", spans[entry].begin) for entry in reading.held - last.held]
        moments += [("ends", spans[entry].end) for entry in last.held - reading.held]
        for what, moment in moments:
            if not since - early_ns <= moment <= until + late_ns:
                faults.append(f"{what} at {moment}, for the kernel from {since} to {until}: {reading.step}")
        last = reading
    return faults + [f"ended while it was held: {last.step}" for entry in last.held if spans[entry].end < times[last.number][1]]


class KernelAccount(TracedTest):
    def setUp(self):
        super().setUp()
        self.play = self.stage()
        self.witness = self.play.root.spawn()
        self.witness.call(f"open {self.file('witness')}")
        self.readings = {}  # by file
        self.numbers = itertools.count()

    def perform(self, plays, **exact):
        """`exact`: what faults_of allows where all stood still."""
        for chance in range(CHANCES):
            files = {}
            for play in plays:
                with self.subTest(f"{play.name}, {play.family}"):
                    files[self.act(play)] = play
            spans, times = self.recorded()
            self.assertEqual(self.faults(files, spans, times, stands=True, **exact), [])
            late = {file: self.faults([file], spans, times, early_ns=TOLERANCE_NS, late_ns=TOLERANCE_NS) for file in files}
            plays = [play for file, play in files.items() if late[file]]
            if not plays:
                return
        self.fail(f"{CHANCES} times: {late}")

    def faults(self, files, spans, times, stands=False, **allowed):
        faults = []
        for file in files:
            readings = [reading for reading in self.readings[file] if reading.stands or not stands]
            faults += faults_of(spans.get(file, {}), readings, times, **allowed)
        return faults

    def recorded(self):
        """The spans of all holds, and when each reading was."""
        report = self.report()
        self.assertEqual(report.recorded["dropped"], 0)
        spans = spans_of(report)
        times = [(span.begin, span.end) for span in spans.pop(str(self.folder / "witness")).values()]
        return spans, times

    def act(self, play):
        """Plays it once. Returns the file that it was about."""
        self.lock = self.folder / re.sub(r"\W", "_", f"{play.name} {play.family} {len(self.readings)}")
        self.lock.touch()
        link = self.lock.with_suffix(".link")
        os.link(self.lock, link)
        self.readings[str(self.lock)] = self.mine = []
        self.cast = {}
        for calls, holders in play.steps(lock=self.lock, link=link, other=self.file("other")):
            for name, _ in calls:
                self.enter(name)
            number, self.before = self.read()
            held = self.mine[-1].held if self.mine else frozenset()
            self.mine.append(Reading(number, held, "before the step"))
            self.under_way = []  # readings
            for name, call in calls:
                self.do(name, call)
            self.compare(holders, f"{play.name}, {play.family}, after {calls}")
        for actor in self.cast.values():
            actor.leave()
        return str(self.lock)

    def enter(self, name):
        if name not in self.cast:
            self.cast[name] = self.play.root.spawn()
            self.cast[name].call(f"open {self.lock}")

    def do(self, name, call):
        actor = self.cast[name]
        word, _, rest = call.partition(" ")
        if word == "exec":
            actor.begin(call)
            self.watch(self.play.listener)
            self.cast[name] = self.play.arrival(actor.pid)
        elif word in ENDS:
            handle = os.pidfd_open(actor.pid)
            if word == "kill":
                os.kill(actor.pid, signal.SIGKILL)
            else:
                actor.begin(call)
            self.watch(handle)
            os.close(handle)
        elif word in MAKES_A_CHILD:
            how, _, child = call.rpartition(" ")
            self.cast[child] = self.play.arrival(actor.call(how))
        elif word == "refused":
            actor.fails(rest)
        elif word == "blocks":
            before = self.waiting()
            actor.begin(rest)
            wait_until(f"{name} waits", lambda: self.waiting() > before)
        elif word == "wakes":
            self.assertNotEqual(actor.end().result, -1)
        elif word == "interrupted":
            actor.interrupt()
        else:
            actor.begin(call)
            self.watch(actor.connection)
            self.assertNotEqual(actor.end().result, -1, call)

    def watch(self, handle):
        """Reads the kernel's account until there is something to read from the handle."""
        deadline = time.monotonic() + PATIENCE_S
        while not select.select([handle], [], [], 0.001)[0]:
            self.under_way.append(self.read())
            self.assertLess(time.monotonic(), deadline, "it does not come back")

    def waiting(self):
        return sum(lock.waits for lock in kernel_locks(self.lock))

    def read(self):
        """The number of a reading of the kernel's account, and the account."""
        self.witness.call("flock 3 sh")
        kernel = kernel_holds([actor.pid for actor in self.cast.values()], [self.lock])
        self.witness.call("flock 3 un")
        return next(self.numbers), kernel

    def compare(self, holders, step):
        """Play, kernel and report agree on who holds what."""
        number, kernel = self.read()
        pids = {hold.pid for hold in kernel}
        self.assertEqual({name for name, actor in self.cast.items() if actor.pid in pids}, holders, step)
        report = None

        def agree():
            nonlocal report
            report = self.report()
            return self.holds(report) == kernel

        try:
            wait_until("the report's holders are the kernel's", agree, patience_s=10)
        except AssertionError:
            self.assertEqual(self.holds(report), kernel, step)
            raise
        before = self.mine[-1].held
        held = frozenset(held["lock_entry_id"] for held in report.held if held["path"] == str(self.lock))
        states = [(self.before, before), (kernel, held)]
        for earlier, seen in self.under_way:  # what is neither was read while it changed
            self.mine += [Reading(earlier, ids, step, stands=False) for state, ids in states if state == seen][:1]
        self.mine.append(Reading(number, held, step))

    def holds(self, report):
        return {hold for hold in report.holds() if hold.path == str(self.lock)}

    def test_one_holder(self):
        self.perform(lock_plays.SOLE_HOLDER)

    def test_a_description_is_shared(self):
        self.perform(lock_plays.SHARED_DESCRIPTION)

    def test_posix_locks_are_the_processs_own(self):
        self.perform(lock_plays.OF_THE_PROCESS)

    def test_conversions(self):
        self.perform(lock_plays.CONVERSIONS)

    def test_ranges(self):
        self.perform(lock_plays.RANGES)

    def test_kept_by_what_fdinfo_does_not_show(self):
        self.perform(lock_plays.UNSEEN)

    def test_deaths(self):
        """The supervisor may be late to see them, never early."""
        self.perform(lock_plays.DEATHS, late_ns=float("inf"))

    def test_a_begin_or_an_end_that_is_10_ms_off_is_seen(self):
        """What the other tests here stand on. Where a busy machine let two readings be further apart, that much."""
        for play in lock_plays.SOLE_HOLDER:
            if play.name in ("unlock", "close", "exit"):
                self.act(play)
        spans, times = self.recorded()
        self.assertEqual(self.faults(spans, spans, times, stands=True), [])
        for file, of_file in spans.items():
            for entry, span in of_file.items():
                standing = [reading for reading in self.readings[file] if reading.stands]
                apart = [times[j.number][0] - times[i.number][1] for i, j in itertools.pairwise(standing)]
                off = max(TOLERANCE_NS, *apart)
                for shifts in ({"begin": -off}, {"begin": off}, {"end": -off}, {"end": off}):
                    with self.subTest(file=file, **shifts):
                        of_file[entry] = span.shifted(**shifts)
                        self.assertEqual(len(self.faults([file], spans, times, stands=True)), 1)
                of_file[entry] = span


if __name__ == "__main__":
    unittest.main()
