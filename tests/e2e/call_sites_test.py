"""Where a lock call came from, of code that comes and goes while the program runs."""

import unittest

from harness import PROGRAMS, PYTHON, TracedTest

PLUGIN = PROGRAMS / "libplugin_locker.so"

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


if __name__ == "__main__":
    unittest.main()
