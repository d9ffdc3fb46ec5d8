#include "lockcore/jsonl.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "lockcore/clock.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

using Json = nlohmann::json;

std::string as_json(std::string_view text) {
    std::string out;
    append_json_string(out, text);
    return out;
}

std::string contents(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> lines_of(LineReader &reader) {
    std::vector<std::string> lines;
    std::string_view line;
    while (reader.next(line)) lines.emplace_back(line);
    return lines;
}

TEST(LockLine, HasTheFieldsThatOtherProgramsRead) {
    std::string out;
    append_lock_line(out, {.utc_ns = parse_utc("2026-11-22T08:00:02.350123456Z").value(),
                           .event = "lock_acquired",
                           .trace_id = "tr_20261122080000_a3f5c9",
                           .operation = "update",
                           .lock_entry_id = "e1",
                           .wait_ns = 2'344'100'123,
                           .session_id = "x",
                           .pid = 1,
                           .tid = 2,
                           .process = "flock",
                           .source = "preload",
                           .lock_id = "flock:fe:01:1234",
                           .family = "flock",
                           .path = "/tmp/a",
                           .mode = "exclusive"});
    EXPECT_EQ(out,
              R"({"timestamp":"2026-11-22T08:00:02.350123456Z","event":"lock_acquired",)"
              R"("trace_id":"tr_20261122080000_a3f5c9","operation":"update","lock_entry_id":"e1","wait_ms":2344.1,)"
              R"("level":"INFO","session_id":"x","pid":1,"tid":2,"process":"flock","source":"preload",)"
              R"("lock":{"id":"flock:fe:01:1234","family":"flock","path":"/tmp/a","start":0,"len":0},)"
              R"("mode":"exclusive","wait_ns":2344100123})"
              "\n");
}

TEST(LockLine, TellsWhyAHoldEndedAndWhyACallFailed) {
    std::string out;
    append_lock_line(out, {.event = "lock_released", .hold_ns = 1'500'000, .reason = "killed", .spool = "s.spool"});
    const Json released = Json::parse(out);
    EXPECT_EQ(released["hold_ms"], 1.5);
    EXPECT_EQ(released["hold_ns"], 1'500'000);
    EXPECT_EQ(released["reason"], "killed");
    EXPECT_EQ(released["spool"], "s.spool");
    EXPECT_FALSE(released.contains("wait_ms"));
    EXPECT_FALSE(released.contains("errno"));

    out.clear();
    append_lock_line(out, {.event = "lock_failed", .wait_ns = 0, .error = 11});
    const Json failed = Json::parse(out);
    EXPECT_EQ(failed["errno"], 11);
    EXPECT_EQ(failed["wait_ms"], 0.0);
    EXPECT_TRUE(failed["wait_ms"].is_number_float());
    EXPECT_FALSE(failed.contains("hold_ms"));
}

TEST(LockLine, WritesMillisecondsToTheMicrosecond) {
    const struct {
        std::int64_t ns;
        const char *text;
    } cases[] = {{0, "0.0"}, {999, "0.0"}, {1'000, "0.001"}, {1'000'000, "1.0"}, {2'344'100'123, "2344.1"},
                 {-3, "0.0"}};
    for (const auto &item : cases) {
        std::string out;
        append_milliseconds(out, item.ns);
        EXPECT_EQ(out, item.text);
    }
}

TEST(JsonString, EscapesWhatMustBeAndMendsWhatIsNoText) {
    const struct {
        std::string text;
        const char *json;
    } cases[] = {
        {"plain /tmp/a", "\"plain /tmp/a\""},
        {"a\"b\\c", R"("a\"b\\c")"},
        {"\n\t\r\x01", R"("\n\t\r\u0001")"},
        {std::string("a\0b", 3), R"("a\u0000b")"},
        {"größe €😀", "\"größe €😀\""},
        {"\xff", "\"\xef\xbf\xbd\""},
        {"a\xc3", "\"a\xef\xbf\xbd\""},                                // cut off
        {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                  // longer than need be
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},  // a surrogate
        {"\xe2\x82x", "\"\xef\xbf\xbd\xef\xbf\xbdx\""},
        {"\x7f", R"("\u007f")"},
    };
    for (const auto &item : cases) EXPECT_EQ(as_json(item.text), item.json);
}

TEST(JsonString, IsValidWhateverTheBytes) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 3'000; ++round) {
        std::string text(random() % 40, '\0');
        // Leading bytes of long characters come up often.
        for (char &c : text) c = static_cast<char>(random() % 3 == 0 ? 0x80 + random() % 128 : random() % 256);
        const Json parsed = Json::parse(as_json(text), nullptr, false);
        ASSERT_TRUE(parsed.is_string()) << text;
    }
}

TEST(LineAppender, AppendsWholeLinesToAPrivateFile) {
    const test::TempFolder folder;
    {
        auto log = LineAppender::open(folder / "log");
        ASSERT_TRUE(log) << log.error().message;
        ASSERT_TRUE(log->append("one\n"));
        auto second = LineAppender::open(folder / "log");
        ASSERT_TRUE(second->append("two\nthree\n"));
        ASSERT_TRUE(log->append("four\n"));
    }
    EXPECT_EQ(contents(folder / "log"), "one\ntwo\nthree\nfour\n");
    struct stat status {};
    ASSERT_EQ(stat((folder / "log").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST(LineAppender, StartsANewLineBehindATornOne) {
    const test::TempFolder folder;
    std::ofstream(folder / "log") << "whole\n{\"tor";
    ASSERT_TRUE(LineAppender::open(folder / "log")->append("next\n"));
    EXPECT_EQ(contents(folder / "log"), "whole\n{\"tor\nnext\n");
}

TEST(LineAppender, SaysInOneLineWhyItCannotWrite) {
    const test::TempFolder folder;
    const auto missing = LineAppender::open(folder / "no/log");
    ASSERT_FALSE(missing);
    EXPECT_NE(missing.error().message.find(folder / "no/log"), std::string::npos);
    ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
    EXPECT_FALSE(LineAppender::open(folder / "fifo")) << "a FIFO must not stop the program";
    auto full = LineAppender::open("/dev/full");
    EXPECT_FALSE(full && full->append("x\n"));
}

TEST(LineAppender, LinesOfManyProcessesStayWhole) {
    const test::TempFolder folder;
    constexpr int kProcesses = 6;
    constexpr int kLines = 300;
    std::vector<pid_t> children;
    for (int i = 0; i < kProcesses; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            auto log = LineAppender::open(folder / "log");
            const std::string line(static_cast<std::size_t>(100 + i * 200), static_cast<char>('a' + i));
            for (int n = 0; n < kLines; ++n) {
                if (!log || !log->append(line + '\n')) _exit(1);
            }
            _exit(0);
        }
        children.push_back(child);
    }
    for (const pid_t child : children) {
        int status = -1;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    }
    auto reader = LineReader::open(folder / "log");
    auto lines = lines_of(*reader);
    // Whoever opens the log while another's line is half written may see it torn, and put an empty line behind it.
    std::erase_if(lines, [](const std::string &line) { return line.empty(); });
    EXPECT_EQ(lines.size(), static_cast<std::size_t>(kProcesses) * kLines);
    for (const std::string &line : lines) {
        const int writer = line[0] - 'a';
        ASSERT_EQ(line, std::string(static_cast<std::size_t>(100 + writer * 200), line[0]));
    }
}

TEST(LineReader, GoesOnWhereItStopped) {
    const test::TempFolder folder;
    std::ofstream out(folder / "log");
    out << "one\n\ntwo" << std::flush;
    auto reader = LineReader::open(folder / "log");
    ASSERT_TRUE(reader) << reader.error().message;
    EXPECT_EQ(lines_of(*reader), (std::vector<std::string>{"one", ""}));
    EXPECT_EQ(lines_of(*reader), std::vector<std::string>{});
    out << " and more\nthree\nfo" << std::flush;
    EXPECT_EQ(lines_of(*reader), (std::vector<std::string>{"two and more", "three"}));
    std::string_view rest;
    ASSERT_TRUE(reader->take_unterminated(rest));
    EXPECT_EQ(rest, "fo");
    EXPECT_FALSE(reader->take_unterminated(rest));
}

TEST(LineReader, PassesOverLinesThatAreTooLong) {
    const test::TempFolder folder;
    const std::string huge(1'000'000, 'x');
    std::ofstream(folder / "log") << "a\n"
                                  << huge << "\nb\n"
                                  << std::string(100, 'y') << "\n"
                                  << std::string(101, 'z') << "\nc\n"
                                  << huge;
    auto reader = LineReader::open(folder / "log", 100);
    EXPECT_EQ(lines_of(*reader), (std::vector<std::string>{"a", "b", std::string(100, 'y'), "c"}));
    EXPECT_EQ(reader->oversized(), 3U);
    std::string_view rest;
    EXPECT_FALSE(reader->take_unterminated(rest));
}

TEST(LineReader, SplitsAsANaiveReaderDoes) {
    const test::TempFolder folder;
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::string text;
    std::vector<std::string> expected;
    for (int i = 0; i < 3'000; ++i) {
        std::string line(random() % (i % 100 == 0 ? 300'000U : 200U), static_cast<char>('a' + random() % 26));
        text += line + '\n';
        expected.push_back(std::move(line));
    }
    std::ofstream(folder / "log") << text;
    auto reader = LineReader::open(folder / "log");
    EXPECT_TRUE(lines_of(*reader) == expected);
}

}  // namespace
}  // namespace planloop
