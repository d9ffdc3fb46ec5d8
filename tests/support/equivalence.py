"""Runs a program plain and traced and compares all that the program, its callers and its files could show of the
difference: stdout, stderr, exit status or signal, the files it leaves (names, kinds, modes, contents), and which locks
of those files the kernel still counts.

A Program is one row: a shell script that runs in a folder of its own, the same path both times. What a run prints that
differs from run to run anyway (a pid, a time) is the row's `varies`, an expression that is cut out of both outputs.
Programs print what each call returned, so equal output is equal errno.

`least` is how many lock events the traced run must have recorded (requested, acquired, released, failed: one each). A
comparison in which the library slept proves nothing.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import stat
from dataclasses import dataclass
from pathlib import Path

from harness import PROGRAMS, PYTHON, TracedTest, kernel_locks


# What every program finds in its folder.
FILES = (("lock", "text\n"), ("lock2", ""), ("count", "0"))


@dataclass(frozen=True)
class Program:
    name: str
    does: str  # for the table of tests/README.md
    script: str
    least: int = 0
    shell: str = "bash"
    varies: str = ""
    files: tuple = ()  # of (name, text): what it finds in its folder, beyond FILES
    contents: bool = True  # whether the files that are left are compared by content, too
    whole: bool = True  # whether nothing may be dropped from the recording


@dataclass(frozen=True)
class Outcome:
    stdout: str
    stderr: str
    ended: str  # "status 0", "SIGTERM"
    files: tuple
    locks: int


def ended(returncode):
    return f"status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def files_in(folder, contents):
    """One line for each file: name, kind and mode, what is in it."""
    lines = []
    for path in sorted(Path(folder).rglob("*")):
        status = path.lstat()
        line = f"{path.relative_to(folder)} {stat.filemode(status.st_mode)}"
        if path.is_symlink():
            line += f" -> {os.readlink(path)}"
        elif path.is_file() and contents:
            line += f" {hashlib.sha256(path.read_bytes()).hexdigest()}"
        lines.append(line)
    return tuple(lines)


def locks_in(folder):
    """How many locks the kernel counts on what is in the folder: one look, since looking is slow for everybody."""
    inodes = {path.lstat().st_ino for path in Path(folder).rglob("*")}
    return sum(lock.inode in inodes for lock in kernel_locks())


class EquivalenceTest(TracedTest):
    def outcome(self, program, traced):
        folder = self.folder / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, text in FILES + program.files:
            path = folder / name
            path.write_text(text)
            path.chmod(0o755 if text.startswith("#!") else 0o644)
        command = [program.shell, "-c", program.script]
        run = self.run_program(self.traced_command(command) if traced else command, cwd=folder, env=self.surroundings())
        said = "".join(line for line in run.stderr.splitlines(True) if not line.startswith("planloop:"))
        # A shell that tells of a killed child names its pid.
        cut = re.compile("|".join(filter(None, (r"(?<=: line \d: ) *\d+ ", program.varies))))
        told = [cut.sub("*", text) for text in (run.stdout, said)]
        return Outcome(*told, ended(run.returncode), files_in(folder, program.contents), locks_in(folder))

    def surroundings(self):
        """What scripts find in their environment: where our programs are, and nothing that varies."""
        return {**self.environment, "PROGRAMS": str(PROGRAMS), "PYTHON": PYTHON, "TZ": "UTC",
                "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
                "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_AUTHOR_DATE": "1700000000 +0000",
                "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b", "GIT_COMMITTER_DATE": "1700000000 +0000"}

    def check(self, program):
        """Plain and traced are the same, and the traced run was recorded."""
        plain, traced = self.outcome(program, False), self.outcome(program, True)
        for field in ("stderr", "stdout", "ended", "files", "locks"):
            self.assertEqual(getattr(traced, field), getattr(plain, field), f"{program.name}: {field}")
        return self.check_recording(program)

    def check_recording(self, program):
        # Without the timeline, which takes a stressor's millions of events a gigabyte.
        run = self.planloop("dev", "locks", "--session", self.session, "--json", "--summary")
        self.assertEqual(run.returncode, 0, run.stderr)
        recorded = json.loads(run.stdout)["recorded"]
        self.assertGreaterEqual(recorded["events"], program.least, "so many events should be recorded")
        if program.whole:
            self.assertEqual(recorded["dropped"], 0)
