"""`planloop dev doctor` says before a run what `dev run` could not do, and where locks follow other rules."""

import json
import os
import shutil
import struct
import unittest
from pathlib import Path

from harness import PROGRAMS, TracedTest

PT_NOTE = 4


class Doctor(TracedTest):
    def doctor(self, *words):
        return self.planloop("dev", "doctor", *words)

    def program(self, name, content, mode=0o755):
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return path

    def check(self, words, status, *said):
        run = self.doctor(*words)
        self.assertEqual((run.returncode, run.stderr), (status, ""), run.stdout)
        for part in said:
            self.assertIn(part, run.stdout)
        return run.stdout.splitlines()

    def test_dynamic_program_found_in_the_path(self):
        self.assertEqual(self.check(["--", "flock"], 0), [f"{shutil.which('flock')} can be traced"])

    def test_static_program(self):
        self.check(["--", PROGRAMS / "static_locker"], 1, "cannot be traced", "statically")

    def test_go_program_without_libc(self):
        """A static program with the note that Go's linker leaves in every one of its own."""
        image = bytearray((PROGRAMS / "static_locker").read_bytes())
        table, = struct.unpack_from("<Q", image, 32)
        size, count = struct.unpack_from("<HH", image, 54)
        notes = [table + i * size for i in range(count) if struct.unpack_from("<I", image, table + i * size)[0] == PT_NOTE]
        offset, = struct.unpack_from("<Q", image, notes[0] + 8)
        struct.pack_into("<III4s", image, offset, 4, 4, 4, b"Go\0\0")
        self.check(["--", self.program("gopher", image)], 1, "Go program without libc")

    def test_other_libc(self):
        image = Path("/bin/true").read_bytes()
        glibc = b"/lib64/ld-linux-x86-64.so.2\0"
        if glibc not in image:
            self.skipTest("not an x86-64 system")
        musl = b"/lib/ld-musl-x86_64.so.1".ljust(len(glibc), b"\0")
        self.check(["--", self.program("alpine", image.replace(glibc, musl))], 1, "musl")

    def test_other_architecture(self):
        image = bytearray(Path("/bin/true").read_bytes())
        struct.pack_into("<H", image, 18, 243)  # RISC-V
        self.check(["--", self.program("foreign", image)], 1, "architecture")

    def test_setuid_program(self):
        program = self.program("raised", Path(shutil.which("flock")).read_bytes())
        if os.geteuid() != 0:
            self.skipTest("only root can make a program another user's")
        os.chown(program, 1, 1)
        program.chmod(0o4755)
        self.check(["--", program], 1, "setuid")

    def test_scripts_are_followed_to_what_runs_them(self):
        script = self.program("script", b"#!/usr/bin/env -S A=b sh -e\ntrue\n")
        self.assertEqual(len(self.check(["--", script], 0, f"{script} is a script", "can be traced")), 2)
        bad = self.program("bad", f"#!{PROGRAMS / 'static_locker'}\n".encode())
        self.check(["--", bad], 1, "which runs it, cannot be traced", "statically")
        gone = self.program("gone", b"#!/no/such/interpreter\n")
        self.check(["--", gone], 1, "/no/such/interpreter, which runs it, cannot be traced: it is not there")

    def test_what_may_not_be_executed(self):
        self.check(["--", self.program("plain", b"text", 0o644)], 1, "may not be executed")

    def test_lock_on_a_local_disk_and_in_memory(self):
        self.check(["--lock", self.folder / "yet-to-be-made"], 0, " is on ")
        self.check(["--lock", "/dev/shm/lock"], 0, "/dev/shm/lock is on tmpfs: ", "what their manual pages say")

    def test_lock_on_an_overlay(self):
        for name in ("lower", "upper", "work", "merged"):
            (self.folder / name).mkdir()
        mount = (f"mount -t overlay overlay -o lowerdir={self.folder}/lower,upperdir={self.folder}/upper,"
                 f"workdir={self.folder}/work {self.folder}/merged")
        unshare = ["unshare", "--user", "--map-root-user", "--mount"] if os.geteuid() else ["unshare", "--mount"]
        if self.run_program([*unshare, "sh", "-c", mount]).returncode != 0:
            self.skipTest("no overlay can be mounted here")
        planloop = os.environ["PLANLOOP_BINARY"]
        run = self.run_program([*unshare, "sh", "-c", f"{mount} && {planloop} dev doctor --json --lock {self.folder}/merged/x"])
        self.assertEqual(run.returncode, 0, run.stderr)
        lock = json.loads(run.stdout)["lock"]
        self.assertEqual((lock["file_system"], lock["rules_changed"]), ("overlay", True))
        self.assertIn("within this mount only", lock["rules"])

    def test_json(self):
        run = self.doctor("--json", "--lock", "/dev/shm/lock", "--", PROGRAMS / "static_locker", "argument")
        self.assertEqual(run.returncode, 1, run.stderr)
        told = json.loads(run.stdout)
        self.assertEqual(told["schema"], "planloop.doctor/1")
        (program,) = told["programs"]
        self.assertEqual((program["path"], program["traceable"]), (str(PROGRAMS / "static_locker"), False))
        self.assertIn("statically", program["reason"])
        self.assertEqual(told["lock"]["rules_changed"], False)

    def test_bad_usage_is_one_line_and_status_2(self):
        for words in ([], ["--", "no-such-program"], ["--lock"], ["--lock", "/no/such/folder/lock"], ["--what"]):
            run = self.doctor(*words)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), words)


if __name__ == "__main__":
    unittest.main()
