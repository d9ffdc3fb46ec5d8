"""The recording gets into trouble while a program runs: its folder goes or is replaced, the disk fills, a limit is
reached, rights change. The program goes on as if it ran plain, and what was lost is counted."""

import json
import os
import re
import signal
import subprocess
import unittest
from pathlib import Path

from harness import BINARY, PATIENCE_S, PYTHON, SHIM, TracedTest, remove_while_written

# Locks, waits for a word, and locks so often on several threads that each needs more room.
WORKER = """
import fcntl, sys, threading
file = open("lock", "r+")
fcntl.flock(file, fcntl.LOCK_EX)
fcntl.flock(file, fcntl.LOCK_UN)
print("ready", flush=True)
sys.stdin.readline()
def work():
    own = open("lock", "r+")
    for _ in range(20000):
        fcntl.flock(own, fcntl.LOCK_SH)
        fcntl.flock(own, fcntl.LOCK_UN)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done", flush=True)
"""


class Trouble(TracedTest):
    def run_through(self, trouble, prefix=(), user=()):
        """What a worker says and how it ends when `trouble` happens in the middle; it must be as without. `user`: a command
        in front of all, the supervisor too."""
        self.file("lock")
        command = [*prefix, PYTHON, "-c", WORKER]
        program = subprocess.Popen([*user, *self.traced_command(command)], env=self.environment, cwd=self.folder, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(program.stdout.readline(), "ready\n")
        trouble()
        said, errors = program.communicate("go\n", timeout=PATIENCE_S)
        self.assertEqual((said, program.returncode), ("done\n", 0), errors)
        return errors

    @property
    def session_folder(self):
        return self.home / "sessions" / self.session

    def lost(self):
        run = self.planloop("dev", "locks", "--session", self.session, "--json", "--summary")
        self.assertEqual(run.returncode, 0, run.stderr)
        report = json.loads(run.stdout)
        if report["recorded"]["dropped"] > 0:
            self.assertIn("lost_events", [finding["kind"] for finding in report["findings"]])
        return report["recorded"]["dropped"]

    def test_folder_is_removed(self):
        self.run_through(lambda: remove_while_written(self.session_folder))

    def test_folder_is_replaced_by_another_sessions(self):
        def replace():
            self.session_folder.rename(self.folder / "away")
            self.traced("flock", self.folder / "lock", "true")

        self.run_through(replace)
        self.assertEqual(self.lost(), 0, "the new recording is not written into by the old one")

    def test_folder_becomes_unreadable(self):
        user = []
        if os.geteuid() == 0:  # may write everywhere, so somebody else has to run it
            nobody = 65534
            user = ["setpriv", f"--reuid={nobody}", f"--regid={nobody}", "--clear-groups"]
            os.chown(self.file("lock"), nobody, nobody)
            os.chown(self.folder, nobody, nobody)
            reach = self.run_program([*user, BINARY, "dev", "preload-path"])
            self.assertEqual(reach.returncode, 0, f"user {nobody} cannot run what was built here: {reach.stderr}")
        spool = self.session_folder / "logs" / "spool"
        self.addCleanup(spool.chmod, 0o700)
        self.run_through(lambda: spool.chmod(0), user=user)
        spool.chmod(0o700)
        self.assertGreater(self.lost(), 0)

    def test_file_size_limit(self):
        self.run_through(lambda: None, prefix=["prlimit", "--fsize=65536"])
        self.lost()

    def test_disk_is_full(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small disk")
        self.home.mkdir()
        mount = self.run_program(["mount", "-t", "tmpfs", "-o", "size=24m", "planloop-test", self.home])
        if mount.returncode != 0:
            self.skipTest("no small disk can be mounted here")
        self.addCleanup(self.run_program, ["umount", "-l", self.home])

        def fill():
            with open(self.home / "big", "wb") as big:
                os.posix_fallocate(big.fileno(), 0, 16 << 20)

        self.run_through(fill)
        (self.home / "big").unlink()
        self.assertGreater(self.lost(), 0)
        told = self.planloop("dev", "locks", "--session", self.session, "--summary")
        self.assertIn("lost", told.stdout)

    def test_disk_that_is_full_from_the_start(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small disk")
        self.home.mkdir()
        if self.run_program(["mount", "-t", "tmpfs", "-o", "size=1m", "planloop-test", self.home]).returncode != 0:
            self.skipTest("no small disk can be mounted here")
        self.addCleanup(self.run_program, ["umount", "-l", self.home])
        self.assertIn("nothing is recorded", self.run_through(lambda: None))

    def test_the_log_leaves_a_disk_its_last_space(self):
        if os.geteuid() != 0:
            self.skipTest("only root can mount a small disk")
        self.home.mkdir()
        if self.run_program(["mount", "-t", "tmpfs", "-o", "size=18m", "planloop-test", self.home]).returncode != 0:
            self.skipTest("no small disk can be mounted here")
        self.addCleanup(self.run_program, ["umount", "-l", self.home])
        pairs = "import fcntl,sys\nf=open(sys.argv[1])\nfor _ in range(8000): fcntl.flock(f,2); fcntl.flock(f,8)"
        run = self.traced(PYTHON, "-c", pairs, self.file())
        self.assertIn("planloop.jsonl is not complete: the disk of ", run.stderr)
        disk = os.statvfs(self.home)
        self.assertGreaterEqual(disk.f_bavail * disk.f_frsize, 15 << 20)

    def test_library_of_another_version(self):
        image = bytearray(Path(SHIM).read_bytes())
        mark = b"planloop library of spool format "
        image[image.index(mark) + len(mark)] = ord("9")
        library = self.folder / "libplanloop_preload.so"
        library.write_bytes(image)
        self.environment["PLANLOOP_PRELOAD"] = str(library)
        errors = self.run_through(lambda: None)
        self.assertEqual(errors.count("\n"), 1, errors)
        self.assertIn("another version", errors)
        library.write_text("no library")
        self.assertIn("not the library", self.planloop("dev", "preload-path").stderr)

    def test_recording_of_another_version(self):
        """A library of a later version was preloaded by hand: what it wrote is named in one line, the rest is read."""
        self.traced("flock", self.file("lock"), "true")
        (spool,) = (self.session_folder / "logs" / "spool").glob("locks-v*.spool")
        image = bytearray(spool.read_bytes())
        version = image.index(b"\n") + 1
        image[version] = 9
        (spool.parent / re.sub(r"locks-v\d", "locks-v9", spool.name)).write_bytes(image)
        run = self.planloop("dev", "locks", "--session", self.session, "--json")
        self.assertEqual(run.returncode, 0)
        self.assertEqual(run.stderr.count("\n"), 1, run.stderr)
        self.assertRegex(run.stderr, r"locks-v9-\w+\.spool: was made by a newer version \(format 9, this program reads up to \d\)")
        self.assertEqual(json.loads(run.stdout)["recorded"]["events"], 3)

    def test_supervisor_is_killed(self):
        """The program outlives it and goes on recording."""
        self.file("lock")
        program = subprocess.Popen(self.traced_command([PYTHON, "-c", WORKER]), env=self.environment, cwd=self.folder,
                                   text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.assertEqual(program.stdout.readline(), "ready\n")
        program.send_signal(signal.SIGKILL)
        said, _ = program.communicate("go\n", timeout=PATIENCE_S)
        self.assertEqual(said, "done\n")
        self.assertEqual(self.lost(), 0)


if __name__ == "__main__":
    unittest.main()
