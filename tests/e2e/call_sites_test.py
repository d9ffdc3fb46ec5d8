"""Where a lock call came from, of code that comes and goes while the program runs."""

import os
import unittest
from pathlib import Path

from harness import PROGRAMS, PYTHON, TracedTest

PLUGIN = PROGRAMS / "libplugin_locker.so"
LOCK_PAIRS = (Path(__file__).parent.parent / "support" / "lock_pairs.cpp").read_text().splitlines()

# A library is opened, called and closed; then other code of the same size may lie at its addresses.
PROGRAM = """
import _ctypes, ctypes, fcntl, os, sys
plugin, lock = sys.argv[1:]
for _ in range(3):
    library = ctypes.CDLL(plugin)
    assert library.lock_and_unlock_file(lock.encode()) == 0
    _ctypes.dlclose(library._handle)
with open(lock) as file:
    fcntl.flock(file, fcntl.LOCK_EX)
if os.fork() == 0:
    library = ctypes.CDLL(plugin)
    os._exit(library.lock_and_unlock_file(lock.encode()))
os.wait()
"""

# Code in a page that belongs to no file, as a just-in-time compiler makes it, calls flock(fd, LOCK_EX).
MADE_AT_RUN_TIME = """
import ctypes, fcntl, mmap, struct, sys
file = open(sys.argv[1])
flock = ctypes.cast(ctypes.CDLL(None).flock, ctypes.c_void_p).value
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
# sub rsp, 8; movabs rax, flock; call rax; add rsp, 8; ret
page.write(b'\\x48\\x83\\xec\\x08\\x48\\xb8' + struct.pack('<Q', flock) + b'\\xff\\xd0\\x48\\x83\\xc4\\x08\\xc3')
made = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
assert made(file.fileno(), fcntl.LOCK_EX) == 0
fcntl.flock(file, fcntl.LOCK_UN)
fcntl.flock(file, fcntl.LOCK_EX)
"""


class CallSites(TracedTest):
    def sites(self, *options):
        lock = self.file()
        run = self.run_program([*self.traced_command([])[:-1], *options, "--", PYTHON, "-c", PROGRAM, PLUGIN, lock])
        self.assertEqual(run.returncode, 0, run.stderr)
        acquired = self.report().events("lock_acquired")
        return [entry.get("call_site", {}) for entry in acquired]

    def check(self, sites):
        self.assertEqual(len(sites), 5)
        for place in (0, 1, 2, 4):
            self.assertEqual((sites[place]["module"], sites[place]["function"]), (str(PLUGIN), "lock_and_unlock_file"))
        self.assertNotEqual(sites[3].get("module"), str(PLUGIN), "the library was closed before")
        self.assertIn("python", sites[3]["module"])

    def test_of_a_library_that_is_opened_and_closed(self):
        self.check(self.sites())

    def test_the_same_in_a_flight_recorder(self):
        self.check(self.sites("--ring", "1M"))

    def test_of_programs_at_a_fixed_and_at_a_random_address_that_children_of_vfork_became(self):
        """The child of vfork, in its parent's memory, must neither tell modules nor count as having told them."""
        fixed, moved, lock = PROGRAMS / "lock_pairs_fixed", PROGRAMS / "lock_pairs", self.file()
        self.assertEqual([fixed.read_bytes()[16], moved.read_bytes()[16]], [2, 3], "ET_EXEC, ET_DYN")
        lines = ("import fcntl, subprocess, sys", "file = open(sys.argv[1])", "fcntl.flock(file, fcntl.LOCK_EX)",
                 "fcntl.flock(file, fcntl.LOCK_UN)", "for program in sys.argv[2:] * 2:",
                 "    subprocess.run([program, sys.argv[1], '1'], check=True)",  # vfork, where Python may
                 "    fcntl.flock(file, fcntl.LOCK_EX)", "    fcntl.flock(file, fcntl.LOCK_UN)")
        run = self.traced(PYTHON, "-c", "\n".join(lines), lock, fixed, moved)
        self.assertEqual(run.returncode, 0, run.stderr)
        sites = [entry["call_site"] for entry in self.report().events("lock_acquired")]
        for place, site in enumerate(sites):
            with self.subTest(place=place):
                if place % 2 == 0:
                    self.assertIn("python", site["module"])
                    continue
                self.assertEqual(site["module"], str(fixed if place % 4 == 1 else moved))
                self.assertEqual((site["function"], os.path.basename(site["file"])), ("main", "lock_pairs.cpp"))
                self.assertIn("flock(fd, LOCK_EX)", LOCK_PAIRS[site["line"] - 1])
        self.assertEqual(len(sites), 9)

    @unittest.skipUnless(os.uname().machine == "x86_64", "the code is x86-64")
    def test_of_code_that_belongs_to_no_file_is_not_known(self):
        run = self.traced(PYTHON, "-c", MADE_AT_RUN_TIME, self.file())
        self.assertEqual(run.returncode, 0, run.stderr)
        made, from_python = self.report().events("lock_acquired")
        self.assertNotIn("module", made.get("call_site", {}))
        self.assertIn("python", from_python["call_site"]["module"])
        self.assertEqual(self.planloop("dev", "locks", "--session", self.session).returncode, 0)

    def test_where_libc_cannot_tell_whose_an_address_is_calls_have_no_site(self):
        blind = {
            **self.environment,
            "LD_PRELOAD": str(PROGRAMS / "libfinds_no_object.so"),
            "ASAN_OPTIONS": "verify_asan_link_order=0",  # where planloop itself is built with it
        }
        for environment, known in ((self.environment, True), (blind, False)):
            self.session = f"known{known}"
            outer, inner = self.file("outer"), self.file("inner")
            run = self.traced("flock", outer, PROGRAMS / "lock_pairs", inner, "3", env=environment)
            self.assertEqual(run.returncode, 0, run.stderr)
            acquired = self.report().events("lock_acquired")
            self.assertEqual(len(acquired), 4)
            for entry in acquired:
                self.assertEqual("module" in entry.get("call_site", {}), known, entry)


if __name__ == "__main__":
    unittest.main()
