"""The rooms of the house look one way only, and the preloaded library needs libc alone."""

import os
import re
import subprocess
import unittest
from pathlib import Path

SOURCE = Path(os.environ["PLANLOOP_SOURCE"])

# room: (rooms it may include, libraries it may include by the first part of their headers)
ROOMS = {
    "lockcore/wire": ((), ()),
    "lockcore": (("lockcore/wire",), ("boost", "elfutils", "dwarf.h", "fmt", "nlohmann", "simdjson.h", "zstd.h")),
    "interpose": (("lockcore/wire",), ()),
    "analysis": (("lockcore", "lockcore/wire"), ("elfutils", "dwarf.h", "gelf.h", "libelf.h", "fmt", "nlohmann", "protozero", "simdjson.h")),
    "cli": (("analysis", "lockcore", "lockcore/wire"), ("CLI", "libsmartcols", "libsmartcols.h", "fmt", "nlohmann")),
}
LIBRARIES = sorted({name for _, libraries in ROOMS.values() for name in libraries} | {"gtest", "gmock", "benchmark"})
HEAVY = ("nlohmann/json.hpp", "CLI/CLI.hpp")
LONG_FILE = 400


def room_of(path):
    """The room that a path inside the project is in; None for what is outside of all of them."""
    fitting = [room for room in ROOMS if path.startswith(room + "/")]
    return max(fitting, key=len, default=None)


def sources():
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in (".h", ".cpp", ".inc") and room_of(str(path.relative_to(SOURCE))):
            yield path


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def violations(path, room):
    rooms, libraries = ROOMS[room]
    for header in includes(path):
        target = room_of(header)
        first = header.split("/")[0]
        if target is not None:
            if target != room and target not in rooms:
                yield f"{path}: {room} must not include {header}"
        elif first in LIBRARIES and first not in libraries:
            yield f"{path}: {room} must not use <{header}>"
        elif first in ("bench", "tests"):
            yield f"{path}: {room} must not include {header}"


def heavy(path):
    """Which of the headers that take seconds to compile are in the file, or in a header of ours that it includes."""
    found = set()
    for header in includes(path):
        if header in HEAVY:
            found.add(header)
        elif room_of(header) and (SOURCE / header).exists():
            found |= {each for each in includes(SOURCE / header) if each in HEAVY}
    return found


class IncludeDirection(unittest.TestCase):
    def test_rooms_include_only_what_they_may(self):
        seen = list(sources())
        self.assertTrue(seen)
        found = [line for path in seen for line in violations(path, room_of(str(path.relative_to(SOURCE))))]
        self.assertEqual(found, [])

    def test_heavy_headers_reach_source_files_only(self):
        """A header that includes one is heavy itself: a source file may include it, another header may not."""
        for path in sources():
            if path.suffix != ".cpp":
                nested = [header for header in includes(path) if room_of(header) and heavy(SOURCE / header)]
                self.assertEqual(nested, [], path)

    def test_no_translation_unit_has_both_heavy_headers(self):
        both = [str(path) for path in sources() if len(heavy(path)) > 1]
        self.assertEqual(both, [])

    def test_long_files_are_listed(self):
        """Never fails: a file past the mark wants a reason, and a reason is for readers to judge."""
        for path in sources():
            lines = len(path.read_text().splitlines())
            if lines > LONG_FILE:
                print(f"{path.relative_to(SOURCE)}: {lines} lines")


class PreloadedLibrary(unittest.TestCase):
    def test_needs_libc_alone(self):
        shown = subprocess.run(["readelf", "-d", os.environ["PLANLOOP_SHIM"]], capture_output=True, text=True, check=True)
        needed = re.findall(r"\(NEEDED\).*\[(.+)\]", shown.stdout)
        # The dynamic loader itself is part of libc; thread-local storage may name it.
        self.assertEqual([name for name in needed if not name.startswith("ld-linux")], ["libc.so.6"])


if __name__ == "__main__":
    unittest.main()
