#include "lockcore/redact.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace planloop {
namespace {

TEST(Redact, KnowsSecretNamesInAnyStyle) {
    for (const char *name : {"password", "db_password", "dbPassword", "DB-PASSWORD", "api_key", "apiKey", "APIKey",
                             "X-Api-Key", "aws_secret_access_key", "authToken", "githubtoken", "Authorization",
                             "privateKey", "tokens", "bearer", "client_secret", "passphrase"}) {
        EXPECT_TRUE(is_secret_name(name)) << name;
    }
    for (const char *name : {"", "path", "key", "monkey", "tokenizer", "passed", "author", "task_id", "primary_key",
                             "keyboard", "secretary_id"}) {
        EXPECT_FALSE(is_secret_name(name)) << name;
    }
}

struct TextCase {
    std::string text, wanted;
};

TEST(Redact, TakesSecretsOutOfTextsAndNothingElse) {
    const TextCase cases[] = {
        {"password=hunter2 and more", "password=[REDACTED] and more"},
        {"password: \"hunter2\"", "password: \"[REDACTED]\""},
        {R"({"api_key": "abc", "n": 1})", R"({"api_key": "[REDACTED]", "n": 1})"},
        {"{\\\"token\\\":\\\"abcd\\\"}", "{\\\"token\\\":\\\"[REDACTED]\\\"}"},
        {"curl -H 'Authorization: Bearer abcdef123' x", "curl -H 'Authorization: Bearer [REDACTED]' x"},
        {"got bearer abcdef123.", "got bearer [REDACTED]"},
        {"tool --password hunter2 --verbose", "tool --password [REDACTED] --verbose"},
        {"postgres://joe:hunter2@host/db", "postgres://joe:[REDACTED]@host/db"},
        {"id AKIAIOSFODNN7EXAMPLE.", "id [REDACTED]"},
        {"push with ghp_0123456789abcdefghijABCDEFGHIJ456789", "push with [REDACTED]"},
        {"sk-" + std::string(24, 'x') + "!", "[REDACTED]!"},
        {"jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln end", "jwt [REDACTED] end"},
        {"a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb", "a\n[REDACTED]\nb"},
        {"-----BEGIN PRIVATE KEY-----\nMIIE", "[REDACTED]"},
        {"secret => shh, next", "secret => [REDACTED], next"},
        // alike, and none
        {"unexpected token: ]", "unexpected token: ]"},
        {"max_tokens=4096", "max_tokens=4096"},
        {"the password was wrong", "the password was wrong"},
        {"-----BEGIN CERTIFICATE-----\nMIIE", "-----BEGIN CERTIFICATE-----\nMIIE"},
        {"http://host:8080/path@x", "http://host:8080/path@x"},
        {"basic idea", "basic idea"},
        {"risk-free and task-list-of-many-things", "risk-free and task-list-of-many-things"},
        {"", ""},
    };
    for (const TextCase &each : cases) {
        EXPECT_EQ(redacted(each.text), each.wanted);
        EXPECT_EQ(redacted(each.wanted), each.wanted) << "once is enough";
    }
}

TEST(Redact, KeepsLayoutOrderAndTypesOfJson) {
    const TextCase cases[] = {
        {R"({ "token" : "a", "max_tokens": 12, "secret": true, "password": null })",
         R"({ "token" : "[REDACTED]", "max_tokens": 12, "secret": true, "password": null })"},
        {R"({"secrets":["a",{"x":"b"},3],"y":"c"})", R"({"secrets":["[REDACTED]",{"x":"[REDACTED]"},3],"y":"c"})"},
        {R"({"text":"say \"password=x\" twice\n","a":[]})", R"({"text":"say \"password=[REDACTED]\" twice\n","a":[]})"},
        {R"({"password":""})", R"({"password":""})"},
        {R"({"max_tokens":"4096"})", R"({"max_tokens":"4096"})"},
        {R"([{"api_key":"x"},{"note":"y"}])", R"([{"api_key":"[REDACTED]"},{"note":"y"}])"},
        {R"({"a":"torn password=x)", R"({"a":"torn password=[REDACTED])"},
    };
    for (const TextCase &each : cases) {
        EXPECT_EQ(redacted_json(each.text), each.wanted);
        EXPECT_EQ(redacted_json(each.wanted), each.wanted);
    }
}

TEST(Redact, WhatStandsForASecretMayCompleteAnother) {
    EXPECT_EQ(redacted("token:Bearer ://"), "token:Bearer [REDACTED]");
    EXPECT_EQ(redacted("-----BEGIN eyJ012345678901234567890-----BEGIN PRIVATE KEY-----"), "[REDACTED]");
}

TEST(Redact, RandomBytesDoNoHarmAndOnceIsEnough) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::string pieces[] = {"password", "=",    ":",       " ",   "\"",       "\\", "{",           "}",
                                  "[",        "]",    "Bearer ", "eyJ", "://",      "@",  "-----BEGIN ", "PRIVATE KEY",
                                  "-----",    "\xff", "token",   ",",   "abcdefgh", "\n"};
    for (int round = 0; round < 5000; ++round) {
        std::string text;
        for (auto i = random() % 12; i > 0; --i) text += pieces[random() % std::size(pieces)];
        const std::string once = redacted(text);
        EXPECT_EQ(redacted(once), once) << text;
        EXPECT_EQ(redacted_json(redacted_json(text)), redacted_json(text)) << text;
    }
}

TEST(Redact, ShortensBetweenCharacters) {
    EXPECT_EQ(shortened("short"), "short");
    EXPECT_EQ(shortened(std::string(300, 'x')), std::string(197, 'x') + "...");
    EXPECT_EQ(shortened("aaaa\xc3\xa9zzzz", 8), "aaaa...");
}

}  // namespace
}  // namespace planloop
