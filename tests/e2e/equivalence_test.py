"""Real programs, run plain and traced, must not show the difference: see tests/support/equivalence.py. tests/README.md
has the table of them."""

import os
import unittest
from pathlib import Path

from equivalence import EquivalenceTest
from equivalence_programs import ROWS, table

README = Path(os.environ.get("PLANLOOP_SOURCE", ".")) / "tests" / "README.md"


class Equivalence(EquivalenceTest):
    """One method for each row, of its name, so that each is a test that runs by itself."""

    def row(self):
        self.check(ROWS[self._testMethodName.removeprefix("test_")])

    def test_flock_command(self):
        self.row()

    def test_bash_idioms(self):
        self.row()

    def test_dash_idioms(self):
        self.row()

    def test_python_fcntl(self):
        self.row()

    def test_python_multiprocessing(self):
        self.row()

    def test_python_threading(self):
        self.row()

    def test_python_subprocess(self):
        self.row()

    def test_python_filelock(self):
        self.row()

    def test_perl(self):
        self.row()

    def test_sqlite_delete(self):
        self.row()

    def test_sqlite_wal(self):
        self.row()

    def test_git_parallel(self):
        self.row()

    def test_make_parallel(self):
        self.row()

    def test_tar(self):
        self.row()

    def test_apt_get(self):
        self.row()

    def test_timeout(self):
        self.row()

    def test_setsid(self):
        self.row()

    def test_env_empty(self):
        self.row()

    def test_descriptor_limit(self):
        self.row()

    def test_file_size_limit(self):
        self.row()

    def test_stress_flock(self):
        self.row()

    def test_stress_lockf(self):
        self.row()

    def test_stress_lockofd(self):
        self.row()

    def test_stress_locka(self):
        self.row()

    def test_jemalloc_behind(self):
        self.row()

    def test_jemalloc_before(self):
        self.row()

    def test_tcmalloc_behind(self):
        self.row()

    def test_tcmalloc_before(self):
        self.row()

    def test_address_sanitizer(self):
        self.row()

    def test_thread_sanitizer(self):
        self.row()

    def test_gdb(self):
        self.row()

    def test_before_constructors(self):
        self.row()

    def test_signal_handler(self):
        self.row()

    def test_small_signal_stack(self):
        self.row()

    def test_reaping_handler(self):
        self.row()

    def test_exit_handler(self):
        self.row()

    def test_thread_local_destructor(self):
        self.row()

    def test_while_another_forks(self):
        self.row()

    def test_many_threads(self):
        self.row()

    def test_many_descriptors(self):
        self.row()

    def test_small_stacks(self):
        self.row()

    def test_interrupted(self):
        self.row()

    def test_cancelled(self):
        self.row()

    def test_local_library(self):
        self.row()

    def test_deepbind_library(self):
        self.row()

    def test_table_of_programs_is_true(self):
        methods = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        self.assertEqual(set(ROWS), methods - {"table_of_programs_is_true"})
        if os.environ.get("PLANLOOP_UPDATE_README") == "1":
            text = README.read_text()
            head, _, rest = text.partition("<!-- programs -->\n")
            README.write_text(head + "<!-- programs -->\n" + table() + "<!-- end -->" + rest.partition("<!-- end -->")[2])
        self.assertIn(table(), README.read_text(), "PLANLOOP_UPDATE_README=1 writes it")


if __name__ == "__main__":
    unittest.main()
