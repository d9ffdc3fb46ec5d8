"""A plan on a disk that is full, in blocks or in inodes, or that can only be read: a tmpfs in a mount namespace of its own.

Each time: done, or one line and status 1 with the plan as it was; and once there is room again all is well.
"""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

from harness import TracedTest

SIZE_KIB = 256
INODES = 64
BLOCK = 4096


class SmallDisk(TracedTest):
    session = "test"

    def setUp(self):
        super().setUp()
        self.home.mkdir()
        rights = ["-m"] if os.geteuid() == 0 else ["-U", "-r", "-m"]
        self.shell = subprocess.Popen(["unshare", *rights, "sh"], text=True, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (self.shell.communicate(), None))
        said = self.tell_shell(f"mount -t tmpfs -o mode=700,size={SIZE_KIB}k,nr_inodes={INODES} tmpfs {self.home}")
        if said:
            print(f"NOT TESTED, no private mounts here: a disk that is full. {said}", file=sys.stderr)
            self.skipTest("no private mounts here, so no disk that is full")
        # The same place as the namespace has it.
        self.home = Path(f"/proc/{self.shell.pid}/root{self.home}")
        self.environment["PLANLOOP_HOME"] = str(self.home)
        self.assertEqual(self.planloop("sessions", "create", "--id", self.session).returncode, 0)
        self.update(1)
        self.filling = self.home / "filling"

    def tell_shell(self, command):
        """What it prints; nothing when all went well."""
        try:
            self.shell.stdin.write(f"{command}; echo; echo over $?\n")
            self.shell.stdin.flush()
        except BrokenPipeError:
            pass
        said = ""
        for line in self.shell.stdout:
            if line.startswith("over "):
                break
            said += line
        return said.strip()

    def update(self, notes):
        payload = {"session": self.session, "context_notes": ["x" * 1000] * notes}
        return self.planloop("update", "--session", self.session, input=json.dumps(payload))

    def plan(self):
        """The plan's files, whole."""
        place = self.home / "sessions" / self.session
        json.loads((place / "state.json").read_text())
        return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}

    def fill(self, free_blocks):
        with open(self.filling, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(BLOCK))
            except OSError:
                pass
        os.truncate(self.filling, max(0, os.stat(self.filling).st_size // BLOCK - free_blocks) * BLOCK)

    def done_or_as_before(self, says):
        """Whether an update was done."""
        before = self.plan()
        run = self.update(4)
        if run.returncode == 0:
            return True
        self.assertEqual((run.returncode, run.stdout), (1, ""), run.stderr)
        self.assertRegex(run.stderr, rf"\Aplanloop: [^\n]*{says}[^\n]*\n\Z")
        self.assertEqual(self.plan(), before)
        return False

    def test_full_of_bytes(self):
        done = []
        for free_blocks in range(0, 12):
            self.fill(free_blocks)
            with self.subTest(free_blocks=free_blocks):
                done.append(self.done_or_as_before("No space left on device"))
        self.assertFalse(done[0])
        self.assertTrue(done[-1])
        self.fill(0)
        run = self.planloop("sessions", "create", "--id", "another")
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        self.assertRegex(run.stderr, r"\Aplanloop: [^\n]*No space left on device\n\Z")
        self.assertEqual(self.planloop("sessions", "current").stdout, "test\n")
        self.filling.unlink()
        self.assertEqual(self.planloop("sessions", "create", "--id", "another").returncode, 0)
        self.assertEqual(self.update(5).returncode, 0)

    def test_records_of_a_full_disk(self):
        """Recordings, error reports and markers: as they were or readable, and the command's own answer stands."""
        logs = self.home / "sessions" / self.session / "logs"
        refused = json.dumps({"tasks": [{"id": 9}]})
        self.assertEqual(self.planloop("update", "--session", self.session, input=refused).returncode, 1)
        whole = {path: path.read_bytes() for path in logs.rglob("*.json")}
        self.assertTrue(any(path.name.endswith("_error.json") for path in whole))
        for free_blocks in range(0, 6):
            self.fill(free_blocks)
            with self.subTest(free_blocks=free_blocks):
                run = self.planloop("update", "--session", self.session, input=refused)
                self.assertEqual((run.returncode, run.stdout), (1, ""))
                self.assertRegex(run.stderr, r"\Aplanloop: [^\n]*\n")
                for command in (("errors", "list"), ("perf",), ("export-traces",), ("export-logs",)):
                    shown = self.planloop("dev", *command, "--session", self.session, "--json")
                    self.assertEqual(shown.returncode, 0, shown.stderr)
                    json.loads(shown.stdout)
                for command in (("on",), ("dogfood",), ("scrub", "--session", self.session)):
                    run = self.planloop("dev", *command)
                    self.assertIn(run.returncode, (0, 1))
                    if run.returncode == 1:
                        self.assertRegex(run.stderr, r"\Aplanloop: [^\n]*No space left on device[^\n]*\n\Z")
                for path in logs.rglob("*.json"):
                    json.loads(path.read_text())
                for path, content in whole.items():
                    self.assertEqual(path.read_bytes(), content)
        backups = self.home / "backups"
        self.assertEqual(list(backups.iterdir()) if backups.exists() else [], [], "no backup fits this disk")
        self.filling.unlink()
        self.assertEqual(self.update(5).returncode, 0)
        self.assertEqual(list(logs.rglob(".unfinished*")), [])

    def test_full_of_files(self):
        # The record of a failed update is files too, which would take each inode that is given back.
        self.environment["PLANLOOP_NO_RECORDING"] = "1"
        fillings = []
        try:
            while True:
                path = self.home / f"filling-{len(fillings)}"
                path.touch()
                fillings.append(path)
        except OSError:
            pass
        done = []
        while not done or not done[-1]:
            with self.subTest(free_inodes=len(done)):
                done.append(self.done_or_as_before("No space left on device"))
            fillings.pop().unlink()
        self.assertFalse(done[0])
        self.assertLess(len(done), 10)

    def test_only_to_be_read(self):
        before = self.plan()
        # Of the mount point alone: who is root only in a user namespace may not do that to the file system.
        self.assertEqual(self.tell_shell(f"mount -o remount,bind,ro {str(self.home).split('/root', 1)[1]}"), "")
        self.assertFalse(self.done_or_as_before("Read-only file system"))
        for command in (("sessions", "create", "--id", "more"), ("sessions", "switch", "--session", self.session)):
            run = self.planloop(*command)
            self.assertEqual((run.returncode, run.stdout), (1, ""))
            self.assertRegex(run.stderr, r"\Aplanloop: [^\n]*Read-only file system\n\Z")
        status = self.planloop("status")
        self.assertEqual((status.returncode, status.stderr), (0, ""))
        self.assertIn("version  1\n", status.stdout)
        self.assertEqual(self.plan(), before)


if __name__ == "__main__":
    unittest.main()
