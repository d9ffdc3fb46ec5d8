"""C++ and Python programs on one session's lock: never both inside, and nobody starves. What killed ones leave behind."""

import select
import subprocess
import unittest
from pathlib import Path

from harness import PROGRAMS, PYTHON, TracedTest, wait_until

import python_planloop

WORKER = str(PROGRAMS / "session_worker")
MODEL = str(Path(python_planloop.__file__))
LONGEST_WAIT_S = 30  # after which a Python planloop gives up


class MixedSessions(TracedTest):
    session = "mixed"

    def setUp(self):
        super().setUp()
        self.assertEqual(self.planloop("sessions", "create", "--id", self.session).returncode, 0)
        self.place = self.home / "sessions" / self.session
        self.inside = self.folder / "inside"

    def start(self, *command):
        return subprocess.Popen([str(word) for word in command], env=self.environment, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_a_thousand_turns_of_both(self):
        workers = [self.start(WORKER, self.session, 280, self.inside) for _ in range(3)]
        models = [self.start(PYTHON, "-B", MODEL, self.place, 40, self.inside) for _ in range(4)]
        for program in workers + models:
            out, said = program.communicate(timeout=110)
            self.assertEqual((program.returncode, said), (0, ""))
            self.assertLess(float(out), LONGEST_WAIT_S)
        self.assertEqual(list((self.place / ".lock_queue").iterdir()), [])

    def test_a_python_holder_that_is_killed_is_passed_over(self):
        for killed_at in ("with its .lock_info", "before its .lock_info"):
            with self.subTest(killed_at):
                lost_info = "os.unlink(lock.info);" if killed_at.startswith("before") else ""
                holder = self.start(PYTHON, "-B", "-c", "import sys, os, time; from python_planloop import PythonLock\n"
                                    f"lock = PythonLock('{self.place}'); lock.__enter__(); {lost_info}"
                                    "print('held', flush=True); time.sleep(600)")
                self.assertEqual(holder.stdout.readline(), "held\n")
                holder.kill()
                holder.communicate()
                self.assertTrue((self.place / ".lock").exists())
                worker = self.start(WORKER, self.session, 1, self.inside)
                _, said = worker.communicate(timeout=60)
                self.assertEqual((worker.returncode, said), (0, ""))
                self.assertFalse((self.place / ".lock").exists())
        self.assertIn("removed a .lock that was left behind", (self.place / "logs" / "planloop.jsonl").read_text())

    def test_a_python_program_waits_for_a_cpp_one(self):
        holder = self.start(WORKER, self.session, "hold")
        self.assertEqual(holder.stdout.readline(), "held\n")
        with self.assertRaises(TimeoutError):
            python_planloop.PythonLock(self.place, timeout=0.25).__enter__()
        self.assertTrue((self.place / ".lock").exists())
        holder.communicate()
        with python_planloop.PythonLock(self.place):
            waiter = self.start(WORKER, self.session, "hold")
            wait_until("the C++ program waits", lambda: len(list((self.place / ".lock_queue").iterdir())) == 2)
            self.assertFalse(select.select([waiter.stdout], [], [], 0)[0])
        self.assertEqual(waiter.stdout.readline(), "held\n")
        waiter.communicate()


if __name__ == "__main__":
    unittest.main()
