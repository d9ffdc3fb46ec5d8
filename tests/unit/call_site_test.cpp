#include "analysis/call_site.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <link.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/support/temp_folder.h"

namespace planloop::analysis {
namespace {

struct Where {
    std::string path;
    std::uint64_t offset = 0;  // of the call
    std::uint32_t line = 0;
};

// Where its caller called it from.
__attribute__((noinline)) Where called_from(std::uint32_t line) {
    const auto *address = static_cast<const char *>(__builtin_return_address(0));
    Dl_info info{};
    link_map *map = nullptr;
    dladdr1(address, &info, reinterpret_cast<void **>(&map), RTLD_DL_LINKMAP);
    Where where;
    where.path = std::filesystem::read_symlink("/proc/self/exe").string();
    where.offset = reinterpret_cast<std::uint64_t>(address) - 1 - map->l_addr;
    where.line = line;
    return where;
}

__attribute__((noinline)) Where a_function_with_a_name() {
    Where where = called_from(__LINE__);
    where.line += 0;  // no tail call
    return where;
}

std::string build_id_of(const std::string &path) {
    const std::string command = "readelf -n '" + path + "' | sed -n 's/.*Build ID: //p'";
    FILE *pipe = popen(command.c_str(), "r");
    char hex[128] = {};
    const bool got = fgets(hex, sizeof(hex), pipe) != nullptr;
    pclose(pipe);
    std::string id;
    for (std::size_t i = 0; got && hex[i] != '\0' && hex[i] != '\n'; i += 2)
        id.push_back(static_cast<char>(std::stoi(std::string(hex + i, 2), nullptr, 16)));
    return id;
}

void run(const std::string &command) {
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

TEST(CallSite, IsFunctionFileAndLineOfTheCall) {
    const Where where = a_function_with_a_name();
    CallSiteNames names;
    const CallSite site = names.look_up({where.path, build_id_of(where.path)}, where.offset);
    EXPECT_NE(site.function.find("a_function_with_a_name()"), std::string::npos) << site.function;
    EXPECT_EQ(site.file.substr(site.file.rfind('/') + 1), "call_site_test.cpp");
    EXPECT_EQ(site.line, where.line);
    EXPECT_EQ(site.remark, "");
    EXPECT_NE(call_site_words(site).find("at call_site_test.cpp:" + std::to_string(where.line)), std::string::npos);
}

TEST(CallSite, WithoutSymbolsIsModuleAndOffset) {
    const Where where = a_function_with_a_name();
    const test::TempFolder folder;
    const std::string stripped = folder.path() + "/stripped";
    run("strip -s -o '" + stripped + "' '" + where.path + "'");
    CallSiteNames names;
    const CallSite site = names.look_up({stripped, build_id_of(where.path)}, where.offset);
    EXPECT_EQ(site.file, "");
    EXPECT_EQ(site.function, "");
    EXPECT_EQ(site.module, stripped);
    EXPECT_EQ(site.offset, where.offset);
    EXPECT_EQ(call_site_words(site).substr(0, 11), "stripped+0x");
}

TEST(CallSite, ComesFromSeparateDebugInformationByBuildId) {
    const Where where = a_function_with_a_name();
    const std::string id = build_id_of(where.path);
    if (id.empty()) GTEST_SKIP() << "this linker makes no build-ids";
    const test::TempFolder folder;
    const std::string stripped = folder.path() + "/stripped";
    run("strip -s -o '" + stripped + "' '" + where.path + "'");
    std::string hex;
    for (const char byte : id) {
        constexpr char kDigits[] = "0123456789abcdef";
        hex += kDigits[static_cast<unsigned char>(byte) >> 4];
        hex += kDigits[static_cast<unsigned char>(byte) & 15];
    }
    const std::string debug = folder.path() + "/debug/.build-id/" + hex.substr(0, 2);
    std::filesystem::create_directories(debug);
    run("objcopy --only-keep-debug '" + where.path + "' '" + debug + "/" + hex.substr(2) + ".debug'");
    CallSiteNames names(folder.path() + "/debug");
    EXPECT_EQ(names.look_up({stripped, id}, where.offset).line, where.line);
    // The program itself may be gone.
    EXPECT_EQ(names.look_up({folder.path() + "/gone", id}, where.offset).line, where.line);
}

TEST(CallSite, SaysWhenTheFileWasReplacedOrIsGone) {
    const Where where = a_function_with_a_name();
    CallSiteNames names("/nowhere");
    const CallSite replaced = names.look_up({where.path, std::string(20, 'x')}, where.offset);
    EXPECT_EQ(replaced.line, 0u);
    EXPECT_EQ(replaced.function, "");
    EXPECT_EQ(replaced.remark, "the file was replaced since");
    EXPECT_EQ(names.look_up({"/no/such/file", "id"}, 7).remark, "the file is not there");
    EXPECT_EQ(call_site_words({}), "?");
}

}  // namespace
}  // namespace planloop::analysis
