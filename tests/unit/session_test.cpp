#include "lockcore/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

class SessionTest : public ::testing::Test {
  protected:
    SessionTest() { setenv("PLANLOOP_HOME", (home_ / "home").c_str(), 1); }
    ~SessionTest() override { unsetenv("PLANLOOP_HOME"); }

    static std::string error_of(std::string_view wanted) {
        const auto found = find_session(wanted);
        return found ? "found " + found->id : found.error().message;
    }
    // Gives a session something recorded, so many seconds after 2001.
    static void record(const Session &session, int seconds) {
        const std::string path = session.spool_dir() + "/locks-v1-00000000.spool";
        std::ofstream(path) << std::string(8192, 'x');
        const timespec times[2] = {{1'000'000'000 + seconds, 0}, {1'000'000'000 + seconds, 0}};
        ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    }

    test::TempFolder home_;
};

TEST_F(SessionTest, HomeIsTheVariableElseUnderTheUsersHome) {
    EXPECT_EQ(planloop_home(), home_ / "home");
    setenv("PLANLOOP_HOME", "/tmp/x///", 1);
    EXPECT_EQ(planloop_home(), "/tmp/x");
    setenv("PLANLOOP_HOME", "", 1);
    const std::string before = getenv("HOME") != nullptr ? getenv("HOME") : "";
    setenv("HOME", "/home/somebody", 1);
    EXPECT_EQ(planloop_home(), "/home/somebody/.planloop");
    setenv("HOME", before.c_str(), 1);
}

TEST_F(SessionTest, AcceptsIdsThatAreFileNames) {
    const struct {
        std::string id;
        bool valid;
    } cases[] = {
        {"x", true},
        {"my session", true},
        {"größe-20261122T080002Z-3fa1", true},
        {"a.b", true},
        {std::string(128, 'a'), true},
        {std::string(129, 'a'), false},
        {"", false},
        {".", false},
        {"..", false},
        {".hidden", false},
        {"a/b", false},
        {"../x", false},
        {"a\nb", false},
        {std::string("a\0b", 3), false},
        {"a\x7f", false},
    };
    for (const auto &item : cases) EXPECT_EQ(valid_session_id(item.id), item.valid) << item.id;
}

TEST_F(SessionTest, CreatesItsFoldersForTheUserAlone) {
    const auto session = create_session("one");
    ASSERT_TRUE(session) << session.error().message;
    EXPECT_EQ(session->directory, home_ / "home/sessions/one");
    for (const std::string &path : {session->directory, session->logs_dir(), session->spool_dir()}) {
        struct stat status {};
        ASSERT_EQ(stat(path.c_str(), &status), 0) << path;
        EXPECT_EQ(status.st_mode & 07777U, 0700U) << path;
    }
    EXPECT_TRUE(create_session("one")) << "one that exists is fine";
    EXPECT_TRUE(find_session("one"));
}

TEST_F(SessionTest, SaysInOneLineWhyItCannotBeCreated) {
    EXPECT_NE(create_session("a/b").error().message.find("invalid session id 'a/b'"), std::string::npos);
    EXPECT_EQ(create_session("a\nb").error().message.find('\n'), std::string::npos);
    std::ofstream(home_ / "home") << "a file";
    const auto failed = create_session("x");
    ASSERT_FALSE(failed);
    EXPECT_NE(failed.error().message.find(home_ / "home"), std::string::npos) << failed.error().message;
    EXPECT_EQ(failed.error().message.find('\n'), std::string::npos);
}

TEST_F(SessionTest, IsFoundByIdPrefixOrLatest) {
    for (const char *id : {"flock-a", "flock-ab", "sqlite"}) ASSERT_TRUE(create_session(id));
    EXPECT_EQ(find_session("sqlite")->id, "sqlite");
    EXPECT_EQ(find_session("sq")->id, "sqlite");
    EXPECT_EQ(find_session("flock-a")->id, "flock-a") << "an exact id wins over those it is a prefix of";
    record(*find_session("flock-ab"), 20);
    record(*find_session("sqlite"), 10);
    EXPECT_EQ(find_session("latest")->id, "flock-ab");
    record(*find_session("flock-a"), 30);
    EXPECT_EQ(find_session("latest")->id, "flock-a");
}

TEST_F(SessionTest, ErrorsNameWhatIsThere) {
    EXPECT_NE(error_of("x").find("no sessions"), std::string::npos) << error_of("x");
    EXPECT_NE(error_of("latest").find("recorded"), std::string::npos) << error_of("latest");
    for (const char *id : {"flock-a", "flock-b", "sqlite"}) ASSERT_TRUE(create_session(id));
    const struct {
        const char *wanted;
        std::vector<const char *> words;
    } cases[] = {
        {"flock", {"ambiguous", "flock-a", "flock-b"}},
        {"sqlight", {"unknown session 'sqlight'", "'sqlite'"}},
        {"flick-b", {"unknown", "'flock-b'"}},
        {"", {"unknown"}},
        {"../sqlite", {"unknown", "'sqlite'"}},
        {"a\nb", {"unknown session 'a?b'"}},
        {"latest", {"recorded"}},
    };
    for (const auto &item : cases) {
        const std::string message = error_of(item.wanted);
        for (const char *word : item.words) EXPECT_NE(message.find(word), std::string::npos) << message;
        EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
}

TEST_F(SessionTest, ListsTheNewestFirstWithTheSizeOfItsSpools) {
    EXPECT_TRUE(list_sessions().empty());
    for (const char *id : {"a", "b", "c"}) ASSERT_TRUE(create_session(id));
    record(*find_session("b"), 10);
    record(*find_session("c"), 20);
    std::ofstream(home_ / "home/sessions/no-folder") << "x";
    const auto sessions = list_sessions();
    ASSERT_EQ(sessions.size(), 3U);
    EXPECT_EQ(sessions[0].id, "c");
    EXPECT_EQ(sessions[0].last_activity_ns, 1'000'000'020'000'000'000);
    EXPECT_GE(sessions[0].spool_bytes, 8192U);
    EXPECT_EQ(sessions[0].spools, 1U);
    EXPECT_EQ(sessions[1].id, "b");
    EXPECT_EQ(sessions[2].id, "a");
    EXPECT_EQ(sessions[2].last_activity_ns, 0);
}

TEST_F(SessionTest, ListsItsSpoolsAndNothingElse) {
    const auto session = create_session("a");
    EXPECT_TRUE(list_spools(*session)->empty());
    for (const char *name : {"b.spool", "a.spool", "a.spool.123", ".spool", "notes"}) {
        std::ofstream(session->spool_dir() + "/" + name) << "x";
    }
    const std::vector<std::string> expected{session->spool_dir() + "/a.spool", session->spool_dir() + "/b.spool"};
    EXPECT_EQ(*list_spools(*session), expected);
    std::filesystem::remove_all(session->spool_dir());
    EXPECT_TRUE(list_spools(*session)->empty()) << "a session that was never recorded into";
}

// What may differ in the end of a name made for a session, made the same: digits, and the digits of the last number.
std::string shape(std::string text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if (i + 4 >= text.size() && std::isxdigit(byte) != 0 && std::isupper(byte) == 0) text[i] = 'x';
        if (std::isdigit(byte) != 0 && text[i] != 'x') text[i] = '0';
    }
    return text;
}

TEST_F(SessionTest, NamesSessionsAfterProgramAndTime) {
    const struct {
        const char *program;
        std::string_view stem;
    } cases[] = {
        {"flock", "flock"},       {"/usr/bin/python3.11", "python3.11"},
        {"./my prog", "my-prog"}, {"/", "session"},
        {"..", "session"},        {"-bash", "bash"},
        {"g++", "g++"},           {"a\nb", "a-b"},
    };
    for (const auto &item : cases) {
        const std::string name = session_name_for(item.program);
        EXPECT_EQ(shape(name.substr(std::min(name.size(), item.stem.size()))), "-00000000T000000Z-xxxx") << name;
        EXPECT_EQ(name.substr(0, item.stem.size()), item.stem);
        EXPECT_TRUE(valid_session_id(name)) << name;
    }
    EXPECT_TRUE(valid_session_id(session_name_for(std::string(1000, 'x'))));
}

}  // namespace
}  // namespace planloop
