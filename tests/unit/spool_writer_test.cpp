#include "lockcore/wire/spool_writer.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/temp_folder.h"

namespace planloop::wire {
namespace {

using test::TempFolder;
using Writer = std::unique_ptr<SpoolWriter>;

std::pair<Writer, int> open_spool(const std::string &folder, std::uint64_t limit_bytes = kDefaultLimitBytes) {
    auto writer = std::make_unique<SpoolWriter>();
    const int result = writer->open(folder.c_str(), limit_bytes);
    return {std::move(writer), result};
}

char *claim(SpoolWriter &spool, std::size_t bytes, std::uint64_t &offset) {
    return spool.claim_chunk(bytes, bytes, offset);
}

std::uint64_t dropped(SpoolWriter &spool, Drop why) {
    return spool.header().dropped[static_cast<std::size_t>(why)].load();
}
std::uint64_t dropped(SpoolWriter &spool) {
    std::uint64_t sum = 0;
    for (const auto &count : spool.header().dropped) sum += count.load();
    return sum;
}

// Runs a function in a child of ours; gives its wait status. The child says that all is well by returning 0; the
// numbers of the checks that failed are its exit status.
int in_child(const std::function<int()> &run) {
    const pid_t child = fork();
    if (child == 0) _exit(run());
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

constexpr int kCannotTest = 77;  // exit status of a child that may not do what the test needs

std::size_t files_in(const std::string &folder) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

std::size_t open_descriptors() {
    return files_in("/proc/self/fd");
}

TEST(SpoolWriter, OpenMakesAFileForItsOwnerAndLeavesErrnoAndDescriptorsAlone) {
    const TempFolder folder;
    const std::size_t descriptors = open_descriptors();
    errno = 12345;
    auto [writer, result] = open_spool(folder.path());
    ASSERT_EQ(result, 0);
    std::uint64_t offset = 0;
    EXPECT_NE(claim(*writer, kPageBytes, offset), nullptr);
    EXPECT_EQ(errno, 12345);
    EXPECT_EQ(open_descriptors(), descriptors);
    EXPECT_EQ(offset, kPageBytes);
    struct stat status {};
    ASSERT_EQ(stat(writer->path(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600U);
    EXPECT_GE(static_cast<std::uint64_t>(status.st_size), writer->header().reserved_bytes.load());
    EXPECT_EQ(open_spool(folder / "missing").second, -ENOENT);
}

TEST(SpoolWriter, ProcessesThatMakeTheSpoolAtOnceGetOneFile) {
    constexpr int kRounds = 40;
    constexpr int kProcesses = 6;
    for (int round = 0; round < kRounds; ++round) {
        const TempFolder folder;
        int barrier[2], answers[2];
        ASSERT_EQ(pipe(barrier), 0);
        ASSERT_EQ(pipe(answers), 0);
        std::vector<pid_t> children;
        for (int i = 0; i < kProcesses; ++i) {
            children.push_back(fork());
            if (children.back() != 0) continue;
            close(barrier[1]);
            char none = 0;
            static_cast<void>(read(barrier[0], &none, 1));  // comes back when the last writer is gone
            auto [writer, result] = open_spool(folder.path());
            const std::uint32_t number = result == 0 ? writer->header().next_process.fetch_add(1) : 0;
            _exit(write(answers[1], &number, sizeof(number)) == sizeof(number) ? 0 : 1);
        }
        close(barrier[0]);
        close(barrier[1]);
        std::vector<std::uint32_t> numbers(kProcesses), expected(kProcesses);
        for (std::uint32_t &number : numbers) {
            ASSERT_EQ(read(answers[0], &number, sizeof(number)), ssize_t{sizeof(number)});
        }
        for (const pid_t child : children) waitpid(child, nullptr, 0);
        close(answers[0]);
        close(answers[1]);
        std::sort(numbers.begin(), numbers.end());
        for (std::uint32_t i = 0; i < kProcesses; ++i) expected[i] = i + 1;
        ASSERT_EQ(numbers, expected) << "round " << round;
        ASSERT_EQ(files_in(folder.path()), 1U) << "a temporary file was left behind";
    }
}

// Two containers that share a session's folder number their threads alike: here both makers are pid 1.
TEST(SpoolWriter, ContainersWithEqualThreadNumbersMakeTheSpoolAtOnce) {
    constexpr int kRounds = 40;
    for (int round = 0; round < kRounds; ++round) {
        const TempFolder folder;
        int barrier[2];
        ASSERT_EQ(pipe(barrier), 0);
        std::vector<pid_t> children;
        for (int i = 0; i < 3; ++i) {
            children.push_back(fork());
            if (children.back() != 0) continue;
            close(barrier[1]);
            if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) _exit(kCannotTest);
            const int status = in_child([&] {
                char none = 0;
                static_cast<void>(read(barrier[0], &none, 1));
                return getpid() == 1 ? -open_spool(folder.path()).second : kCannotTest;
            });
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
        }
        close(barrier[0]);
        close(barrier[1]);
        std::vector<int> results;
        for (const pid_t child : children) {
            int status = 0;
            waitpid(child, &status, 0);
            results.push_back(WEXITSTATUS(status));
        }
        if (std::count(results.begin(), results.end(), kCannotTest) != 0) GTEST_SKIP() << "no PID namespaces here";
        ASSERT_EQ(results, std::vector<int>(3, 0)) << "round " << round;
    }
}

struct Damage {
    const char *name;
    std::function<void(const std::string &path)> inflict;
    int expected;
};

template <class T>
void poke(const std::string &path, std::size_t offset, const T &value) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(reinterpret_cast<const char *>(&value), sizeof(value));
}

TEST(SpoolWriter, RefusesWhatIsNoSpoolOfThisVersion) {
    const auto resize = [](std::uintmax_t bytes) {
        return [bytes](const std::string &path) { std::filesystem::resize_file(path, bytes); };
    };
    const Damage cases[] = {
        {"untouched", [](const std::string &) {}, 0},
        {"empty", resize(0), -EPROTO},
        {"less than a page", resize(kPageBytes - 1), -EPROTO},
        {"cut short behind the header", resize(kPageBytes), -EPROTO},
        {"foreign", [](const std::string &path) { poke(path, 0, 'x'); }, -EPROTO},
        {"of a later version",
         [](const std::string &path) { poke(path, offsetof(SpoolHeader, version), kFormatVersion + 1); }, -EPROTO},
        {"of the other byte order",
         [](const std::string &path) { poke(path, offsetof(SpoolHeader, endian), std::uint32_t{0x04030201}); },
         -EPROTO},
        {"about to overwrite its header",
         [](const std::string &path) { poke(path, offsetof(SpoolHeader, next_offset), std::uint64_t{0}); }, -EPROTO},
        {"a folder",
         [](const std::string &path) {
             std::filesystem::remove(path);
             std::filesystem::create_directory(path);
         },
         -EISDIR},
        {"a symbolic link",
         [](const std::string &path) {
             std::filesystem::rename(path, path + ".there");
             std::filesystem::create_symlink(path + ".there", path);
         },
         -ELOOP},
    };
    for (const Damage &damage : cases) {
        const TempFolder folder;
        auto [first, made] = open_spool(folder.path());
        ASSERT_EQ(made, 0);
        std::uint64_t offset = 0;
        ASSERT_NE(claim(*first, kPageBytes, offset), nullptr);
        damage.inflict(first->path());
        EXPECT_EQ(open_spool(folder.path()).second, damage.expected) << damage.name;
    }
}

TEST(SpoolWriter, ChunksClaimedByManyThreadsNeverOverlapAndAreReserved) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    const TempFolder folder;
    auto [writer, result] = open_spool(folder.path());
    ASSERT_EQ(result, 0);
    constexpr unsigned kThreads = 8;
    constexpr int kClaims = 150;
    std::vector<std::vector<std::pair<std::uint64_t, std::uint64_t>>> claimed(kThreads);
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t, spool = writer.get()] {
            std::mt19937 random(seed + t);
            for (int i = 0; i < kClaims; ++i) {
                const std::size_t bytes = (random() % 64 + 1) * kPageBytes;
                std::uint64_t offset = 0;
                char *memory = claim(*spool, bytes, offset);
                if (memory == nullptr) continue;
                memory[0] = memory[bytes - 1] = static_cast<char>(t);  // SIGBUS if it was not reserved
                claimed[t].emplace_back(offset, offset + bytes);
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    std::vector<std::pair<std::uint64_t, std::uint64_t>> all;
    for (const auto &part : claimed) all.insert(all.end(), part.begin(), part.end());
    EXPECT_EQ(all.size(), std::size_t{kThreads * kClaims});
    std::sort(all.begin(), all.end());
    std::uint64_t end = kPageBytes;
    for (const auto &[from, to] : all) {
        ASSERT_GE(from, end);
        ASSERT_EQ(from / SpoolWriter::kWindowBytes, (to - 1) / SpoolWriter::kWindowBytes) << "straddles two windows";
        end = to;
    }
    EXPECT_LE(end, writer->header().reserved_bytes.load());
    EXPECT_EQ(end, writer->header().next_offset.load());
}

TEST(SpoolWriter, GoesOnWhereAnExtensionWasLeftByAThreadThatDied) {
    const TempFolder folder;
    auto [writer, result] = open_spool(folder.path());
    ASSERT_EQ(result, 0);
    const pid_t dead = fork();
    if (dead == 0) _exit(0);
    waitpid(dead, nullptr, 0);
    writer->header().growing = static_cast<std::uint32_t>(dead);
    std::uint64_t offset = 0;
    EXPECT_NE(claim(*writer, kPageBytes, offset), nullptr);
    EXPECT_EQ(writer->header().growing.load(), 0U);
}

TEST(SpoolWriter, ASizeLimitIsKeptAndCountsDrops) {
    const TempFolder folder;
    constexpr std::uint64_t kLimit = 20 * kPageBytes + 100;  // need not be whole pages
    auto [writer, result] = open_spool(folder.path(), kLimit);
    ASSERT_EQ(result, 0);
    std::uint64_t offset = 0;
    std::size_t bytes = 16 * kPageBytes;
    EXPECT_NE(writer->claim_chunk(bytes, kPageBytes, offset), nullptr);
    bytes = 16 * kPageBytes;
    ASSERT_NE(writer->claim_chunk(bytes, 2 * kPageBytes, offset), nullptr);
    EXPECT_EQ(bytes, 2 * kPageBytes) << "a smaller chunk still fits";
    EXPECT_NE(claim(*writer, kPageBytes, offset), nullptr);
    EXPECT_EQ(dropped(*writer), 0U);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(claim(*writer, kPageBytes, offset), nullptr);
    EXPECT_FALSE(writer->worth_trying());
    writer->count_refusal();
    EXPECT_EQ(dropped(*writer, Drop::size_limit), 4U);
    EXPECT_EQ(dropped(*writer), 4U);
    EXPECT_LE(std::filesystem::file_size(writer->path()), kLimit);
}

TEST(SpoolWriter, AFileSizeLimitOfTheProcessRaisesNoSignal) {
    for (const rlim_t limit : {rlim_t{0}, rlim_t{1024}, rlim_t{kPageBytes}, rlim_t{5 * kPageBytes}, rlim_t{100'000}}) {
        const TempFolder folder;
        const int status = in_child([&] {
            signal(SIGXFSZ, SIG_DFL);
            const rlimit small{limit, RLIM_INFINITY};
            if (setrlimit(RLIMIT_FSIZE, &small) != 0) return kCannotTest;
            auto [writer, result] = open_spool(folder.path());
            if (limit < kPageBytes) return result == -EFBIG && files_in(folder.path()) == 0 ? 0 : 1;
            if (result != 0) return 2;
            std::uint64_t offset = 0;
            std::uint64_t pages = 1;
            while (char *memory = claim(*writer, kPageBytes, offset)) {
                std::memset(memory, 1, kPageBytes);
                ++pages;
            }
            if (pages != limit / kPageBytes) return 3;  // what the limit allows is used
            return dropped(*writer, Drop::no_space) == 1 ? 0 : 4;
        });
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "limit " << limit << ", wait status " << status;
    }
}

// Runs a function in a child that has a small file system of its own at `folder`; SIGBUS is in the wait status.
int on_small_disk(const std::string &folder, const char *options, const std::function<int()> &run) {
    return in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return kCannotTest;
        static_cast<void>(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
        if (mount("planloop-test", folder.c_str(), "tmpfs", 0, options) != 0) return kCannotTest;
        return run();
    });
}

// Takes all that is left of the disk.
void fill_disk(const std::string &path) {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    const std::string block(64 * 1024, 'x');
    while (write(fd, block.data(), block.size()) > 0) {
    }
    close(fd);
}

TEST(SpoolWriter, AFullDiskRaisesNoSignalAndCostsTheSessionNothing) {
    const TempFolder folder;
    const int status = on_small_disk(folder.path(), "size=40m", [&] {
        auto [writer, result] = open_spool(folder.path());
        if (result != 0) return 1;
        std::uint64_t offset = 0;
        if (claim(*writer, kPageBytes, offset) == nullptr) return 2;
        fill_disk(folder / "filler");
        // What was promised before can be written still.
        while (writer->header().next_offset.load() < writer->header().reserved_bytes.load()) {
            char *memory = claim(*writer, kPageBytes, offset);
            if (memory == nullptr) return 3;
            std::memset(memory, 1, kPageBytes);
        }
        const std::uint64_t next = writer->header().next_offset.load();
        for (int i = 0; i < 100; ++i) {
            std::size_t bytes = kLargestChunkBytes;
            if (writer->claim_chunk(bytes, kPageBytes, offset) != nullptr) return 4;
        }
        if (dropped(*writer, Drop::no_space) != 100) return 5;
        if (writer->header().next_offset.load() != next) return 6;  // tries use nothing up
        std::filesystem::remove(folder / "filler");
        char *memory = claim(*writer, kPageBytes, offset);
        if (memory == nullptr || offset != next) return 7;
        std::memset(memory, 1, kPageBytes);
        return 0;
    });
    if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotTest) GTEST_SKIP() << "no mount namespaces here";
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

TEST(SpoolWriter, NeverTakesTheLastSpaceOfADisk) {
    const TempFolder folder;
    const int status = on_small_disk(folder.path(), "size=24m", [&] {
        auto [writer, result] = open_spool(folder.path());
        if (result != 0) return 1;
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;
        while (char *memory = claim(*writer, 16 * kPageBytes, offset)) {
            std::memset(memory, 1, 16 * kPageBytes);
            bytes += 16 * kPageBytes;
        }
        struct statfs disk {};
        if (statfs(folder.path().c_str(), &disk) != 0) return 2;
        const auto left = static_cast<std::uint64_t>(disk.f_bavail) * static_cast<std::uint64_t>(disk.f_bsize);
        if (left < SpoolWriter::kLeaveFreeBytes) return 3;
        // All else it uses, though it extends in far larger steps while there is room.
        return left < SpoolWriter::kLeaveFreeBytes + 32 * kPageBytes && bytes > (7U << 20) ? 0 : 4;
    });
    if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotTest) GTEST_SKIP() << "no mount namespaces here";
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

TEST(SpoolWriter, WorksWithoutADescriptorToSpareOnceMapped) {
    const TempFolder folder;
    const int status = in_child([&] {
        auto [writer, result] = open_spool(folder.path());
        std::uint64_t offset = 0;
        if (result != 0 || claim(*writer, kPageBytes, offset) == nullptr) return 1;
        const rlimit none{0, 0};
        if (setrlimit(RLIMIT_NOFILE, &none) != 0) return kCannotTest;
        const std::uint64_t reserved = writer->header().reserved_bytes.load();
        while (writer->header().next_offset.load() < reserved) {
            char *memory = claim(*writer, kPageBytes, offset);
            if (memory == nullptr) return 2;
            std::memset(memory, 1, kPageBytes);
        }
        return claim(*writer, kPageBytes, offset) == nullptr && dropped(*writer) == 1 ? 0 : 3;
    });
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

}  // namespace
}  // namespace planloop::wire
