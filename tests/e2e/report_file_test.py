"""The files that commands write with -o: whole or not there, and never over what exists unless asked."""

import os
import resource
import unittest

from harness import TracedTest


class ReportFile(TracedTest):
    def setUp(self):
        super().setUp()
        self.traced("flock", self.file(), "true")
        self.folder = os.path.join(os.path.dirname(self.file()), "out")
        os.makedirs(self.folder)
        self.path = os.path.join(self.folder, "report.html")

    def write(self, *options, **more):
        return self.planloop("dev", "report", "--session", self.session, *options, **more)

    def refused(self, says, *options, **more):
        shown = self.write(*options, **more)
        self.assertEqual((shown.returncode, shown.stdout), (2, ""))
        self.assertEqual(shown.stderr.count("\n"), 1)
        self.assertIn(says, shown.stderr)

    def test_a_file_is_made_and_nothing_said(self):
        shown = self.write("-o", self.path)
        self.assertEqual((shown.returncode, shown.stdout, shown.stderr), (0, "", ""))
        self.assertEqual(os.listdir(self.folder), ["report.html"])
        with open(self.path, encoding="utf-8") as file:
            page = file.read()
        self.assertTrue(page.startswith("<!doctype html>"))
        self.assertTrue(page.endswith("</html>\n"))
        self.assertEqual(self.write().stdout, page)
        self.assertEqual(self.write("-o", "-").stdout, page)

    def test_what_exists_is_kept_unless_forced(self):
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("mine")
        self.refused("report.html exists; --force writes over it", "-o", self.path)
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine")
        self.assertEqual(self.write("-o", self.path, "--force").returncode, 0)
        self.assertGreater(os.path.getsize(self.path), 10_000)
        self.assertEqual(os.listdir(self.folder), ["report.html"])

    def test_a_link_stays_a_link(self):
        link = os.path.join(self.folder, "link")
        os.symlink("report.html", link)
        self.assertEqual(self.write("-o", self.path).returncode, 0)
        self.assertEqual(self.write("-o", link, "--force").returncode, 0)
        self.assertTrue(os.path.islink(link))

    def test_a_full_disk_leaves_nothing_half_written(self):
        self.refused("No space left on device", "-o", "/dev/full")
        # The disk that fits 8 KiB of it: a limit on file sizes ends the write in the middle as a full disk does.
        with open(self.path, "w", encoding="utf-8") as file:
            file.write("mine")
        self.refused("File too large", "-o", self.path, "--force",
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)))
        self.assertEqual(os.listdir(self.folder), ["report.html"])
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine")

    def test_where_nothing_can_be_written_it_says_so(self):
        for path, why in (
            (os.path.join(self.folder, "missing", "report.html"), "No such file or directory"),
            (self.folder, "is a folder"),
            ("/proc/report.html", "cannot write /proc/report.html"),
        ):
            with self.subTest(path=path):
                self.refused(why, "-o", path)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    unittest.main()
