"""Under a seccomp filter that kills at any system call that the program does not make when it runs plain, it lives on
traced, and the report says from where on it is not traced."""

import os
import re
import shlex
import subprocess
import unittest
from pathlib import Path

from equivalence import EquivalenceTest, Program
from harness import PROGRAMS

SANDBOXED = str(PROGRAMS / "sandboxed")
SOURCE = Path(os.environ.get("PLANLOOP_SOURCE", "."))


class Sandbox(EquivalenceTest):
    def calls_made(self, *command):
        """The numbers of the system calls that the program makes plain, with the two that install a filter."""
        log = self.folder / "calls"
        (self.folder / "lock").touch()
        subprocess.run(["strace", "-f", "-n", "-o", log, *command], cwd=self.folder, env=self.environment, check=False,
                       stdout=subprocess.DEVNULL)
        numbers = re.findall(r"^\d+ +\[ *(\d+)\]", log.read_text(), re.MULTILINE)
        return "\n".join(sorted(set(numbers)))

    def check_sandboxed(self, how, *command):
        words = [SANDBOXED, "-", how, "lock", *command]
        allowed = self.calls_made(*words)
        script = f"{SANDBOXED} allowed {how} lock {shlex.join(command)}; echo $?"
        self.check(Program(how, "", script, files=(("allowed", allowed),), whole=False))
        self.assertNotIn("159", allowed.splitlines())  # the test would prove nothing if the filter were lenient
        (finding,) = self.report().findings("not_traced")
        self.assertIn("seccomp", finding["summary"])
        return self.report()

    def test_program_that_forbids_itself_all_else(self):
        report = self.check_sandboxed("lock")
        self.assertEqual(len(report.events("lock_acquired")), 3, "until then it was traced")
        self.assertGreater(report.recorded["dropped"], 0)

    def test_program_started_behind_a_filter(self):
        self.check_sandboxed("exec", "/usr/bin/flock", "lock", "/bin/echo", "locked")

    def test_program_spawned_behind_a_filter(self):
        self.check_sandboxed("spawn", "/bin/sh", "-c", "flock lock echo locked; exit 5")

    def test_filter_that_spares_us_changes_nothing(self):
        """One that refuses some calls with an errno, as containers and services have it."""
        everything = "\n".join(str(number) for number in range(460) if number != 317)
        self.check(Program("lenient", "", f"{SANDBOXED} allowed lock lock; echo $?", files=(("allowed", everything),)))
        report = self.report()
        self.assertEqual(report.findings("not_traced"), [])
        self.assertEqual(len(report.events("lock_acquired")), 9)

    def test_list_of_our_own_calls_is_whole(self):
        """What the library asks of the kernel, as its sources say it, is what a filter is tried on."""
        used = set()
        for folder in ("interpose", "lockcore/wire"):
            for file in set((SOURCE / folder).glob("*.[hc]*")) - {SOURCE / "lockcore/wire/crash_dump.h"}:  # not in the shim
                used |= set(re.findall(r"raw_syscall\(\s*SYS_(\w+)", file.read_text()))
        listed = set(re.findall(r"SYS_(\w+)", (SOURCE / "interpose/seccomp_filter.h").read_text()))
        self.assertEqual(used - listed, set())


if __name__ == "__main__":
    unittest.main()
