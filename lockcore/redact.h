// Secrets do not belong into records: whatever is stored under logs/ goes through here first. One table of names and
// one of shapes, in redact.cpp.
//
// A value is secret by its name (password, api_key, authTOKEN, Authorization …) or by its own shape (`Bearer …`, a
// private key, AWS, GitHub and JSON web tokens, `password=…` inside a longer text, a password in a URL). What is taken
// out is replaced by kRedacted; nothing else of the text changes, so applying it twice is applying it once.
// Numbers, true, false and null stay what they are whatever their name: `max_tokens` is no secret, and readers rely on
// types.
//
// Errors: none; text that is no UTF-8 and JSON that is none are treated as bytes. Threads: no state. Signals: not
// async-signal-safe. Cost: one pass, some ns a byte.
#ifndef PLANLOOP_LOCKCORE_REDACT_H
#define PLANLOOP_LOCKCORE_REDACT_H

#include <cstddef>
#include <string>
#include <string_view>

namespace planloop {

inline constexpr std::string_view kRedacted = "[REDACTED]";
inline constexpr std::size_t kLongestStoredValue = 200;  // bytes, in error reports

// Whether what goes by this name is secret, in whatever style the name is written.
bool is_secret_name(std::string_view name);

// Secrets inside a text replaced.
std::string redacted(std::string_view text);
// A value and what it is called.
std::string redacted(std::string_view name, std::string_view value);
// A JSON document: strings under secret names, and secrets inside other strings. Its layout, the order and the types of
// its fields stay. Text that is no JSON comes back as redacted() makes it.
std::string redacted_json(std::string_view document);

// At most `most` bytes and a mark that something was cut; never cut inside a UTF-8 character.
std::string shortened(std::string_view text, std::size_t most = kLongestStoredValue);

}  // namespace planloop

#endif
