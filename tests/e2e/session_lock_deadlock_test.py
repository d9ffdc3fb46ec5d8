"""Circles through planloop's own session lock, which planloop.jsonl tells of, and a file lock, which the spool tells of."""

import os
import signal
import subprocess
import unittest

from harness import BINARY, PATIENCE_S, PROGRAMS, TracedTest, kernel_locks, wait_until

WORKER = str(PROGRAMS / "session_worker")


class SessionLockDeadlock(TracedTest):
    session = "test"

    def setUp(self):
        super().setUp()
        self.assertEqual(self.planloop("sessions", "create", "--id", self.session).returncode, 0)

    def start(self, *command):
        run = subprocess.Popen(self.traced_command([str(word) for word in command]), env=self.environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
        self.addCleanup(self.end, run)
        return run

    @staticmethod
    def end(run):
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait(PATIENCE_S)
        for stream in (run.stdout, run.stderr):
            stream.close()

    def test_of_a_plan_updated_under_a_file_lock_and_a_file_locked_under_the_session_lock(self):
        lock = self.file()
        worker = self.start(WORKER, self.session, "flock", lock)
        self.assertEqual(worker.stdout.readline(), "held\n")
        update = self.start("flock", lock, BINARY, "update", "--session", self.session)
        update.stdin.write('{"session": "test", "done": true}')
        update.stdin.close()
        wait_until("the update waits", lambda: self.report().data["waiting"])
        worker.stdin.close()
        wait_until("the worker waits", lambda: any(one.waits for one in kernel_locks(lock)))
        (live,) = wait_until("the deadlock is told", lambda: self.report().findings("deadlock"))
        waiting = {wait["process"]: wait["pid"] for wait in self.report().data["waiting"]}
        session_lock = self.report().lock_of(self.home / "sessions" / self.session / ".lock")["id"]
        by_process = {who["process"]: who for who in live["participants"]}
        self.assertEqual(set(by_process), {"session_worker", "planloop"})
        self.assertEqual((live["certainty"], live["to_ns"]), ("confirmed", None))
        for process, other, asked in (("session_worker", "planloop", self.report().lock_of(lock)["id"]),
                                      ("planloop", "session_worker", session_lock)):
            who = by_process[process]
            self.assertEqual((who["pid"], who["waits_for"]), (waiting[process], asked))
            self.assertEqual(who["waits_on"], [waiting[other]])
            self.assertEqual(by_process[other]["holds"], [asked])
        os.kill(waiting["session_worker"], signal.SIGKILL)
        update.wait(PATIENCE_S)
        (after,) = self.report().findings("deadlock")
        self.assertIn(f"session_worker {waiting['session_worker']}", after["resolved_by"])
        self.assertEqual({who["pid"] for who in after["participants"]}, set(waiting.values()))

    def test_both_in_one_order_are_none(self):
        lock = self.file()
        worker = self.start(WORKER, self.session, "flock", lock)
        self.assertEqual(worker.stdout.readline(), "held\n")
        update = self.start(BINARY, "update", "--session", self.session)
        update.stdin.write('{"session": "test", "done": true}')
        update.stdin.close()
        wait_until("the update waits", lambda: self.report().data["waiting"])
        worker.stdin.close()
        self.assertEqual((worker.wait(PATIENCE_S), update.wait(PATIENCE_S)), (0, 0))
        kinds = {finding["kind"] for finding in self.report().findings()}
        self.assertFalse(kinds & {"deadlock", "lock_order_inversion", "killed_while_holding"}, kinds)


if __name__ == "__main__":
    unittest.main()
