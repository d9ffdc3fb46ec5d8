#include "lockcore/redact.h"

#include <algorithm>
#include <array>
#include <vector>

namespace planloop {
namespace {

// A name is secret when one of its words is, or when two words behind each other are.
constexpr std::array<std::string_view, 17> kSecretWords{
    "password", "passwords", "passwd",  "pwd",        "passphrase",  "secret",        "secrets",    "token", "tokens",
    "bearer",   "apikey",    "apikeys", "credential", "credentials", "authorization", "privatekey", "cookie"};
// Also as the end of a word that was written together: githubtoken, dbpassword.
constexpr std::array<std::string_view, 6> kSecretEndings{"password", "passwd", "passphrase",
                                                         "secret",   "token",  "apikey"};
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kSecretPairs{{{"api", "key"},
                                                                                     {"private", "key"},
                                                                                     {"access", "key"},
                                                                                     {"secret", "key"},
                                                                                     {"signing", "key"},
                                                                                     {"encryption", "key"},
                                                                                     {"auth", "key"}}};

// Values that tell by themselves what they are: how they begin, and how many characters follow at least.
struct Shape {
    std::string_view prefix;
    std::size_t follow;
};
constexpr std::array<Shape, 23> kShapes{{
    {"AKIA", 16},   {"ASIA", 16},  // AWS access key ids
    {"ghp_", 20},   {"gho_", 20},     {"ghu_", 20},     {"ghs_", 20},     {"ghr_", 20},  {"github_pat_", 20},  // GitHub
    {"glpat-", 16},                                                                                            // GitLab
    {"sk-", 16},    {"rk_live_", 16}, {"sk_live_", 16}, {"sk_test_", 16},                 // OpenAI, Anthropic, Stripe
    {"xoxb-", 10},  {"xoxp-", 10},    {"xoxa-", 10},    {"xoxs-", 10},    {"xapp-", 10},  // Slack
    {"AIza", 30},   {"ya29.", 20},                                                        // Google
    {"hf_", 20},    {"npm_", 20},                                                         // Hugging Face, npm
    {"eyJ", 20},                                                                          // JSON web tokens
}};
// Schemes of an Authorization header; what follows is the secret.
constexpr std::array<std::string_view, 3> kSchemes{"bearer", "basic", "digest"};

constexpr std::string_view kKeyBegin = "-----BEGIN ";
constexpr std::string_view kKeyEnd = "-----END ";
constexpr std::string_view kPrivateKey = "PRIVATE KEY";
constexpr std::size_t kShortestToken = 6;
constexpr std::size_t kLongestName = 128;

bool is_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_upper(char c) {
    return c >= 'A' && c <= 'Z';
}
char lower(char c) {
    return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c;
}
bool in_name(char c) {
    return is_alnum(c) || c == '_' || c == '-';
}
bool in_token(char c) {
    return is_alnum(c) || std::string_view("._~+/=-").find(c) != std::string_view::npos;
}
bool ends_value(char c) {
    return static_cast<unsigned char>(c) <= ' ' || std::string_view(",;&)\"'\\}<>").find(c) != std::string_view::npos;
}
bool is_quote_or_space(char c) {
    return c == '"' || c == '\'' || c == '\\' || c == ' ' || c == '\t';
}

template <class Table>
bool has(const Table &table, const typename Table::value_type &entry) {
    return std::find(table.begin(), table.end(), entry) != table.end();
}

// "dbPassword-2" gives db, password, 2; "APIKey" gives api, key.
std::vector<std::string> words_of(std::string_view name) {
    std::vector<std::string> words(1);
    for (std::size_t i = 0; i < name.size(); ++i) {
        const char c = name[i];
        if (!is_alnum(c)) {
            if (!words.back().empty()) words.emplace_back();
            continue;
        }
        const bool after_lower = i > 0 && is_alnum(name[i - 1]) && !is_upper(name[i - 1]);
        const bool before_lower = i > 0 && is_upper(name[i - 1]) && i + 1 < name.size() && is_alnum(name[i + 1]) &&
                                  lower(name[i + 1]) == name[i + 1];
        if (is_upper(c) && (after_lower || before_lower) && !words.back().empty()) words.emplace_back();
        words.back() += lower(c);
    }
    if (words.back().empty()) words.pop_back();
    return words;
}

bool is_number(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || c == '.'; });
}

// max_tokens=4096 tells nobody anything.
bool is_count(std::string_view name, std::string_view value) {
    return is_number(value) && words_of(name).back() == "tokens";
}

// Where a value begins that the name in front of `at` is about; npos: there is none.
std::size_t value_after_name(std::string_view text, std::size_t at, bool as_option) {
    std::size_t i = at;
    while (i < text.size() && i - at < 8 && is_quote_or_space(text[i])) ++i;
    if (i < text.size() && (text[i] == ':' || text[i] == '=')) {
        ++i;
        if (i < text.size() && text[i] == '>') ++i;
        const std::size_t separator = i;
        while (i < text.size() && i - separator < 8 && is_quote_or_space(text[i])) ++i;
        return i;
    }
    return as_option && i > at && i < text.size() && text[i] != '-' ? i : std::string_view::npos;
}

class TextRedaction {
  public:
    explicit TextRedaction(std::string_view text) : text_(text) {}

    std::string run() {
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '-' && private_key()) continue;
            if (c == ':' && url_password()) continue;
            if (in_name(c) && (at_ == 0 || !in_name(text_[at_ - 1]))) {
                name_or_token();
            } else {
                ++at_;
            }
        }
        out_ += text_.substr(kept_);
        return std::move(out_);
    }

  private:
    void replace(std::size_t begin, std::size_t end) {
        out_ += text_.substr(kept_, begin - kept_);
        out_ += kRedacted;
        kept_ = at_ = end;
    }

    bool private_key() {
        if (text_.compare(at_, kKeyBegin.size(), kKeyBegin) != 0) return false;
        const std::size_t label = at_ + kKeyBegin.size();
        const std::size_t dashes = text_.find("-----", label);
        if (dashes == std::string_view::npos) return false;
        if (text_.substr(label, dashes - label).find(kPrivateKey) == std::string_view::npos) return false;
        std::size_t end = text_.find(kKeyEnd, dashes);
        if (end != std::string_view::npos) end = text_.find("-----", end + kKeyEnd.size());
        replace(at_, end == std::string_view::npos ? text_.size() : end + 5);
        return true;
    }

    bool url_password() {
        if (text_.compare(at_, 3, "://") != 0) return false;
        std::size_t colon = std::string_view::npos;
        for (std::size_t i = at_ + 3; i < text_.size(); ++i) {
            const char c = text_[i];
            if (c == ':' && colon == std::string_view::npos) colon = i;
            if (c == '@') {
                if (colon == std::string_view::npos || i == colon + 1) return false;
                replace(colon + 1, i);
                return true;
            }
            if (c == '/' || ends_value(c)) break;
        }
        return false;
    }

    std::size_t end_of(bool (*belongs)(char), std::size_t from) const {
        while (from < text_.size() && belongs(text_[from])) ++from;
        return from;
    }
    static bool in_value(char c) { return !ends_value(c); }

    bool is_scheme(std::size_t begin, std::size_t end) const {
        if (end - begin > 6) return false;
        std::string word;
        for (std::size_t i = begin; i < end; ++i) word += lower(text_[i]);
        return has(kSchemes, word);
    }

    void name_or_token() {
        const std::size_t begin = at_;
        const std::size_t end = end_of(in_name, begin);
        for (const Shape &shape : kShapes) {
            if (text_.compare(begin, shape.prefix.size(), shape.prefix) != 0) continue;
            const std::size_t stop = end_of(in_token, begin + shape.prefix.size());
            if (stop - begin < shape.prefix.size() + shape.follow) continue;
            return replace(begin, stop);
        }
        if (is_scheme(begin, end) && end < text_.size() && text_[end] == ' ') {
            const std::size_t token = end_of([](char c) { return c == ' '; }, end);
            const std::size_t stop = end_of(in_token, token);
            if (stop - token >= kShortestToken &&
                !(lower(text_[begin]) != 'b' && is_number(text_.substr(token, stop - token)))) {
                return replace(token, stop);
            }
        }
        at_ = end;
        const std::string_view name = text_.substr(begin, end - begin);
        if (name.size() > kLongestName || !is_secret_name(name)) return;
        const bool as_option = name.size() > 2 && name[0] == '-';
        std::size_t value = value_after_name(text_, end, as_option);
        if (value == std::string_view::npos) return;
        std::size_t stop = end_of(in_value, value);
        if (is_scheme(value, stop) && stop < text_.size() && text_[stop] == ' ') {
            value = stop + 1;
            stop = end_of(in_value, value);
        }
        if (stop == value) return;
        const std::string_view secret = text_.substr(value, stop - value);
        constexpr std::size_t kShortestSecret = 4;  // "unexpected token: ]"
        if (is_count(name, secret) || (words_of(name).back() == "token" && secret.size() < kShortestSecret)) return;
        replace(value, stop);
    }

    std::string_view text_;
    std::string out_;
    std::size_t at_ = 0, kept_ = 0;
};

// Goes through a JSON text by its strings and brackets, and copies everything else.
class JsonRedaction {
  public:
    explicit JsonRedaction(std::string_view text) : text_(text) {}

    std::string run() {
        levels_.push_back({});
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '"') {
                string();
                continue;
            }
            if (c == '{' || c == '[') {
                levels_.push_back({levels_.back().secret || levels_.back().secret_value});
            } else if ((c == '}' || c == ']') && levels_.size() > 1) {
                levels_.pop_back();
            } else if (c == ',') {
                levels_.back().secret_value = false;
            }
            out_ += c;
            ++at_;
        }
        return std::move(out_);
    }

  private:
    struct Level {
        bool secret = false;        // everything in it is
        bool secret_value = false;  // the value of the present key is
        std::string_view key{};
    };

    void string() {
        std::size_t end = at_ + 1;
        while (end < text_.size() && text_[end] != '"') end += text_[end] == '\\' ? 2U : 1U;
        if (end >= text_.size()) {  // torn
            out_ += redacted(text_.substr(at_));
            at_ = text_.size();
            return;
        }
        const std::string_view content = text_.substr(at_ + 1, end - at_ - 1);
        at_ = end + 1;
        std::size_t next = at_;
        while (next < text_.size() && static_cast<unsigned char>(text_[next]) <= ' ') ++next;
        Level &level = levels_.back();
        out_ += '"';
        if (next < text_.size() && text_[next] == ':') {
            level.key = content;
            level.secret_value = is_secret_name(content);
            out_ += content;
        } else if ((level.secret || level.secret_value) && !content.empty()) {
            out_ += level.secret_value && is_count(level.key, content) ? content : kRedacted;
        } else {
            out_ += redacted(content);
        }
        out_ += '"';
    }

    std::string_view text_;
    std::string out_;
    std::size_t at_ = 0;
    std::vector<Level> levels_;
};

}  // namespace

bool is_secret_name(std::string_view name) {
    if (name.size() > kLongestName) name = name.substr(name.size() - kLongestName);
    const std::vector<std::string> words = words_of(name);
    for (std::size_t i = 0; i < words.size(); ++i) {
        const std::string_view word = words[i];
        if (has(kSecretWords, word)) return true;
        for (const std::string_view ending : kSecretEndings) {
            if (word.size() > ending.size() && word.substr(word.size() - ending.size()) == ending) return true;
        }
        if (i > 0 && has(kSecretPairs, {words[i - 1], word})) return true;
    }
    return false;
}

// What was put in place of a secret can complete the pattern of another around it, hence until nothing changes.
// It ends: no span begins or stops inside a kRedacted, so each round leaves fewer bytes outside of them.
std::string redacted(std::string_view text) {
    std::string before;
    std::string after = TextRedaction(text).run();
    while (after != text) {
        before = std::move(after);
        text = before;
        after = TextRedaction(text).run();
    }
    return after;
}

std::string redacted(std::string_view name, std::string_view value) {
    if (value.empty() || !is_secret_name(name)) return redacted(value);
    return std::string(is_count(name, value) ? value : kRedacted);
}

std::string redacted_json(std::string_view document) {
    return JsonRedaction(document).run();
}

std::string shortened(std::string_view text, std::size_t most) {
    constexpr std::string_view kMark = "...";
    if (text.size() <= most) return std::string(text);
    std::size_t end = most - std::min(most, kMark.size());
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    return std::string(text.substr(0, end)) + std::string(kMark);
}

}  // namespace planloop
