"""Recording goes on in what a program starts with an environment of its own making, and is hardly to be seen there."""

import unittest

from harness import PYTHON, TracedTest

PRELOAD = "LD_PRELOAD="

PYTHON_WITH_ENVIRONMENT = """
import subprocess, sys
print(subprocess.run(["flock", sys.argv[1], "env"], env={"ONLY": "this"}, capture_output=True, text=True).stdout, end="")
"""

PYTHON_SPAWN = """
import os, sys
os.waitpid(os.posix_spawn("/usr/bin/flock", ["flock", sys.argv[1], "true"], {}), 0)
"""

SHELL_HOLDS_OVER_EXEC = """
exec 9>"$1"
flock 9
exec env -i sh -c 'echo held; read go; exec 9>&-; echo let go; read go'
"""


class Following(TracedTest):
    def environment_of(self, *command):
        """What the program prints of its environment, without the one variable that may be there."""
        plain, traced = self.run_program(command), self.traced(*command)
        self.assertEqual(traced.returncode, plain.returncode, traced.stderr)
        lines = traced.stdout.splitlines()
        added = [line for line in lines if line not in plain.stdout.splitlines()]
        self.assertLessEqual(len(added), 1, "one variable at most is added")
        self.assertTrue(all(line.startswith(PRELOAD) for line in added), added)
        return [line for line in lines if line not in added]

    def acquisitions(self):
        return [event["process"] for event in self.report().events("lock_acquired")]

    def test_empty_environment(self):
        self.assertEqual(self.environment_of("env", "-i", "env"), [])

    def test_flock_under_an_empty_environment(self):
        self.assertEqual(self.traced("env", "-i", "flock", self.file(), "true").returncode, 0)
        self.assertEqual(self.acquisitions(), ["flock"])

    def test_python_subprocess_with_an_environment(self):
        self.assertEqual(self.environment_of(PYTHON, "-c", PYTHON_WITH_ENVIRONMENT, self.file()), ["ONLY=this"])
        self.assertEqual(self.acquisitions(), ["flock"])

    def test_posix_spawn_with_an_empty_environment(self):
        self.assertEqual(self.traced(PYTHON, "-c", PYTHON_SPAWN, self.file()).returncode, 0)
        self.assertEqual(self.acquisitions(), ["flock"])

    def test_preload_that_was_removed_comes_back(self):
        self.assertEqual(self.traced("env", "-u", "LD_PRELOAD", "flock", self.file(), "true").returncode, 0)
        self.assertEqual(self.acquisitions(), ["flock"])

    def test_other_preloads_stay_behind_ours(self):
        run = self.traced("env", "-i", "LD_PRELOAD=libutil.so.1", "env")
        self.assertEqual(len(run.stdout.splitlines()), 1, run.stdout)
        ours, other = run.stdout.strip().removeprefix(PRELOAD).split(":")
        self.assertTrue(ours.endswith("libplanloop_preload.so"), ours)
        self.assertEqual(other, "libutil.so.1")

    def test_a_lock_that_is_held_over_such_an_exec(self):
        lock = self.file()
        run = self.traced("sh", "-c", SHELL_HOLDS_OVER_EXEC, "sh", lock, input="go\ngo\n")
        self.assertEqual(run.stdout, "held\nlet go\n", run.stderr)
        (released,) = self.report().events("lock_released")
        self.assertEqual(released["reason"], "close")


if __name__ == "__main__":
    unittest.main()
