"""What the record path costs in instructions, which no other load of the machine changes: it must not grow unnoticed.

Counted by valgrind's callgrind for the library alone, in lock_pairs, for one lock and unlock pair: the difference of two
runs of different lengths. Of a copy without debug information: with it callgrind books code that was inlined from a
header under that header, not under the library. A figure belongs to a compiler: with one that is not in the table the
figure is printed and the test is skipped, aloud. Under valgrind no two calls are close enough in time for a descriptor to
be trusted unasked, so each acquisition here pays for that question too.
"""

import re
import shutil
import subprocess
import unittest

from harness import PROGRAMS, SHIM, TracedTest

# Instructions of the library for one pair, by compiler; the growth that is let pass.
FIGURES = {
    "g++ 12": {"append": 511, "ring": 636},
}
MOST_GROWTH = 1.10
SHORT, LONG = 3000, 9000


def compiler():
    found = subprocess.run(["readelf", "-p", ".comment", SHIM], capture_output=True, text=True, check=True).stdout
    version = re.search(r"GCC: \([^)]*\) (\d+)\.", found)
    return f"g++ {version[1]}" if version else found.strip()


@unittest.skipUnless(shutil.which("valgrind"), "valgrind is not installed: the instructions of the record path are not counted")
class RecordPath(TracedTest):
    def setUp(self):
        super().setUp()
        self.shim = self.folder / "libplanloop_preload.so"
        subprocess.run(["objcopy", "--strip-debug", SHIM, self.shim], check=True)

    def instructions(self, pairs, **variables):
        out = self.folder / f"callgrind.{pairs}"
        session = f"{self.session}-{pairs}"
        environment = {**self.environment, "LD_PRELOAD": str(self.shim), "PLANLOOP_SESSION": session, **variables}
        run = self.run_program(
            ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", PROGRAMS / "lock_pairs", self.file(),
             pairs], env=environment)
        self.assertEqual(run.returncode, 0, run.stderr)
        text = subprocess.run(["callgrind_annotate", "--threshold=100", str(out)], capture_output=True, text=True,
                              check=True).stdout
        ours = re.findall(r"^\s*([\d,]+) .*\[.*libplanloop_preload\.so\]", text, re.MULTILINE)
        self.assertTrue(ours, text[:2000])
        return sum(int(count.replace(",", "")) for count in ours)

    def per_pair(self, **variables):
        return (self.instructions(LONG, **variables) - self.instructions(SHORT, **variables)) / (LONG - SHORT)

    def check(self, kind, **variables):
        known = FIGURES.get(compiler())
        found = self.per_pair(**variables)
        print(f"{kind}: {found:.1f} instructions a pair, {compiler()}")
        if known is None:
            self.skipTest(f"no figure for {compiler()}: {found:.1f} instructions a pair, compared with nothing")
        self.assertLessEqual(found, known[kind] * MOST_GROWTH, "the record path has grown")

    def test_a_pair_appended_to_the_spool_takes_no_more_instructions(self):
        self.check("append")

    def test_a_pair_in_a_flight_recorder_takes_no_more_instructions(self):
        self.check("ring", PLANLOOP_RING="256K")


if __name__ == "__main__":
    unittest.main()
