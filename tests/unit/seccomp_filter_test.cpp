#include "interpose/seccomp_filter.h"

#include <gtest/gtest.h>

#include <vector>

namespace planloop::shim {
namespace {

using Filter = std::vector<sock_filter>;

constexpr sock_filter kLoadNumber = {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)};
constexpr sock_filter kLoadArchitecture = {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, arch)};
constexpr sock_filter kLoadArgument = {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, args)};

sock_filter jump_if_equal(std::uint32_t value, std::uint8_t then, std::uint8_t otherwise) {
    return {BPF_JMP | BPF_JEQ | BPF_K, then, otherwise, value};
}
sock_filter answer(std::uint32_t action) {
    return {BPF_RET | BPF_K, 0, 0, action};
}
bool spares_us(const Filter &filter) {
    return filter_spares_us(filter.data(), filter.size());
}

TEST(SeccompFilter, ActionsThatEndNobodySpare) {
    for (const std::uint32_t action : {SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_ERRNO | 38U})
        EXPECT_TRUE(spares_us({answer(action)})) << std::hex << action;
    for (const std::uint32_t action : {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP,
                                       SECCOMP_RET_TRACE, SECCOMP_RET_USER_NOTIF})
        EXPECT_FALSE(spares_us({answer(action)})) << std::hex << action;
}

TEST(SeccompFilter, OneForbiddenCallOfOursIsHarmful) {
    const auto forbids = [](int call) {
        return Filter{kLoadNumber, jump_if_equal(static_cast<std::uint32_t>(call), 1, 0), answer(SECCOMP_RET_ALLOW),
                      answer(SECCOMP_RET_KILL_PROCESS)};
    };
    EXPECT_FALSE(spares_us(forbids(SYS_kcmp)));
    EXPECT_FALSE(spares_us(forbids(SYS_ppoll)));
    EXPECT_TRUE(spares_us(forbids(SYS_reboot)));
}

TEST(SeccompFilter, OwnArchitectureIsAllowed) {
    const std::uint32_t other = AUDIT_ARCH_I386;
    EXPECT_TRUE(spares_us({kLoadArchitecture, jump_if_equal(kAuditArchitecture, 1, 0), answer(SECCOMP_RET_KILL_PROCESS),
                           answer(SECCOMP_RET_ALLOW)}));
    EXPECT_FALSE(spares_us(
        {kLoadArchitecture, jump_if_equal(other, 1, 0), answer(SECCOMP_RET_KILL_PROCESS), answer(SECCOMP_RET_ALLOW)}));
}

TEST(SeccompFilter, WhatHangsOnArgumentsCountsAsHarmfulWhereItConcernsUs) {
    const auto looks_at_argument_of = [](int call) {
        return Filter{kLoadNumber,
                      jump_if_equal(static_cast<std::uint32_t>(call), 0, 3),
                      kLoadArgument,
                      jump_if_equal(1, 0, 1),
                      answer(SECCOMP_RET_KILL_PROCESS),
                      answer(SECCOMP_RET_ALLOW)};
    };
    EXPECT_FALSE(spares_us(looks_at_argument_of(SYS_openat)));
    EXPECT_TRUE(spares_us(looks_at_argument_of(SYS_personality)));
}

TEST(SeccompFilter, ComputesAsTheKernelDoes) {
    // x = 5; m[3] = x; a = 3 | 4 & 6 ...: 7 & 6 = 6; 6 + 5 = 11; 11 - 1 = 10 > 9
    EXPECT_TRUE(spares_us({{BPF_LDX | BPF_IMM, 0, 0, 5},
                           {BPF_STX, 0, 0, 3},
                           {BPF_LD | BPF_IMM, 0, 0, 3},
                           {BPF_ALU | BPF_OR | BPF_K, 0, 0, 4},
                           {BPF_ALU | BPF_AND | BPF_K, 0, 0, 6},
                           {BPF_LDX | BPF_MEM, 0, 0, 3},
                           {BPF_ALU | BPF_ADD | BPF_X, 0, 0, 0},
                           {BPF_ALU | BPF_SUB | BPF_K, 0, 0, 1},
                           {BPF_JMP | BPF_JGT | BPF_K, 0, 1, 9},
                           answer(SECCOMP_RET_ALLOW),
                           answer(SECCOMP_RET_KILL_PROCESS)}));
}

TEST(SeccompFilter, FilterThatNeverAnswersIsHarmful) {
    EXPECT_FALSE(spares_us({kLoadNumber}));
    EXPECT_FALSE(spares_us({{BPF_JMP | BPF_JA, 0, 0, 100}, answer(SECCOMP_RET_ALLOW)}));
    EXPECT_FALSE(spares_us({{0xffff, 0, 0, 0}, answer(SECCOMP_RET_ALLOW)}));
}

}  // namespace
}  // namespace planloop::shim
