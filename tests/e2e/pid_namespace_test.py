"""Inside a PID namespace /proc/locks hides the locks that a dead process took, so nothing there tells who holds them. What
is recorded does. That a lock is held is asked of the kernel itself, by a try from outside."""

import subprocess
import unittest

from harness import BINARY, PATIENCE_S, TracedTest, wait_until

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
# flock(1) takes the lock on a descriptor of the shell and is dead when the shell goes on.
SCRIPT = """
step() { echo "$$ $(grep -c "FLOCK.*:$(stat -c %i f) 0 EOF" /proc/locks)"; read go; }
exec 9>f; flock 9; step
sh -c 'echo $$ child; read go; kill -9 $$'; step
exec 9>&-; step
( flock 9; exec sh -c 'echo $$ last; read go' ) 9>f; step
"""


class PidNamespace(TracedTest):
    def setUp(self):
        super().setUp()
        if self.run_program([*NAMESPACE, "true"]).returncode != 0:
            self.skipTest("may not make a PID namespace")

    def held(self):
        return self.run_program(["flock", "-n", self.lock, "true"]).returncode != 0

    def check_step(self, run, who, expected):
        """The script's next step: who says so, and who then holds the lock."""
        words = run.stdout.readline().split()
        self.assertEqual(words[1:], [who])
        self.shell = self.shell or int(words[0])
        holders = {self.shell if each == "shell" else int(words[0]) for each in expected}
        wait_until("the report has the holders", lambda: self.report().holders(self.lock) == holders, patience_s=10)
        self.assertEqual(self.held(), bool(expected))
        run.stdin.write("go\n")
        run.stdin.flush()

    def check(self, command):
        self.lock = self.file("f")
        self.shell = None
        run = subprocess.Popen([str(word) for word in command], cwd=self.folder, env=self.environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        self.addCleanup(run.kill)
        self.check_step(run, "0", ["shell"])
        self.check_step(run, "child", ["shell", "itself"])
        self.check_step(run, "0", ["shell"])
        self.check_step(run, "0", [])
        self.check_step(run, "last", ["itself"])
        self.check_step(run, "0", [])
        _, errors = run.communicate(timeout=PATIENCE_S)
        self.assertEqual(run.returncode, 0, errors)
        report = self.report()
        self.assertEqual([entry["reason"] for entry in report.events("lock_released")], ["close", "exit"])
        self.assertEqual(report.recorded["dropped"], 0)

    def test_run_inside(self):
        self.check([*NAMESPACE, BINARY, "dev", "run", "--session", self.session, "--", "bash", "-c", SCRIPT])

    def test_namespace_inside_a_run(self):
        """Its pids are those of other processes outside."""
        self.check(self.traced_command([*NAMESPACE, "bash", "-c", SCRIPT]))

    def test_a_proc_of_other_pids_is_not_believed(self):
        """Without a /proc of its own the namespace has that of its parent, where the same numbers are other programs."""
        lock = self.file("f")
        run = self.traced(*NAMESPACE[:-1], "sh", "-c", f"flock {lock} true; exec 9>{lock}; flock 9; true")
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        report = self.report()
        self.assertEqual([entry["process"] for entry in report.events("lock_acquired")], ["flock", "flock"])
        self.assertEqual([entry["process"] for entry in report.events("lock_released")], ["flock", "sh"])
        self.assertEqual([entry["reason"] for entry in report.events("lock_released")], ["exit", "exit"])
        self.assertEqual(report.holders(lock), set())


if __name__ == "__main__":
    unittest.main()
