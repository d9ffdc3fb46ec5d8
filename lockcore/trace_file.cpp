#include "lockcore/trace_file.h"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "lockcore/clock.h"
#include "lockcore/file_lock.h"
#include "lockcore/jsonl.h"
#include "lockcore/record_files.h"
#include "lockcore/trace_id.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::seconds kJoinPatience{5};

void append_field(std::string &out, std::string_view key, std::string_view text) {
    out += fmt::format(",\"{}\":", key);
    append_json_string(out, text);
}
void append_time(std::string &out, std::string_view key, std::int64_t utc_ns) {
    out += fmt::format(",\"{}\":", key);
    if (utc_ns == 0) {
        out += "null";
        return;
    }
    out += '"';
    append_utc(out, utc_ns);
    out += '"';
}
void append_ms(std::string &out, std::string_view key, std::int64_t ns) {
    out += fmt::format(",\"{}\":", key);
    append_milliseconds(out, ns);
}

void append_span(std::string &out, const SpanRecord &span, const std::string *parent, std::int64_t last_utc_ns) {
    const bool open = span.end_utc_ns == 0;
    out += "{\"name\":";
    append_json_string(out, span.name);
    append_time(out, "start_time", span.begin_utc_ns);
    append_time(out, "end_time", span.end_utc_ns);
    append_ms(out, "duration_ms", (open ? last_utc_ns : span.end_utc_ns) - span.begin_utc_ns);
    if (parent != nullptr) append_field(out, "parent", *parent);
    const std::string metadata = '{' + span.metadata + '}';
    out += ",\"metadata\":";
    out += Json::accept(metadata) ? metadata : "{}";
    out += fmt::format(",\"id\":{}", span.id);
    if (parent != nullptr) out += fmt::format(",\"parent_id\":{}", span.parent);
    append_field(out, "status", open ? "unfinished" : span.status == SpanStatus::error ? "error" : "ok");
    if (!span.error.empty()) append_field(out, "error", span.error);
    out += fmt::format(",\"pid\":{},\"tid\":{}}}", span.pid, span.tid);
}

// The operation's own span, which is the first.
const SpanRecord *root_of(const OperationRecord &operation) {
    return operation.spans.empty() ? nullptr : &operation.spans.front();
}

std::string dump(const Json &json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::uint64_t highest_id(const Json &spans) {
    std::uint64_t highest = 0;
    for (const Json &span : spans) {
        const auto id = span.is_object() ? span.find("id") : span.end();
        if (span.is_object() && id != span.end() && id->is_number_unsigned()) {
            highest = std::max(highest, id->get<std::uint64_t>());
        }
    }
    return highest;
}

// Whether the present document has our operation already: written by somebody who was killed before the journal went.
bool holds(const Json &spans, const Json &root) {
    return std::any_of(spans.begin(), spans.end(), [&](const Json &span) {
        return span.is_object() && span.value("start_time", Json()) == root.value("start_time", Json(1)) &&
               span.value("pid", Json()) == root.value("pid", Json(1)) &&
               span.value("id", Json()) == root.value("id", Json(1));
    });
}

// Two traces of one trace id as one; nothing when the present one is none that could be joined.
std::optional<std::string> joined(const std::string &present, const std::string &added) {
    Json both = Json::parse(present, nullptr, false);
    Json more = Json::parse(added, nullptr, false);
    if (!both.is_object() || !both.contains("spans") || !both["spans"].is_array()) return std::nullopt;
    Json &spans = both["spans"];
    if (!more["spans"].empty() && holds(spans, more["spans"].front())) return present;
    const std::uint64_t behind = highest_id(spans);
    for (Json &span : more["spans"]) {
        for (const char *key : {"id", "parent_id"}) {
            if (span.contains(key)) span[key] = span[key].get<std::uint64_t>() + behind;
        }
        spans.push_back(std::move(span));
    }
    const auto time = [](const Json &json, const char *key) {
        return json.contains(key) && json[key].is_string() ? parse_utc(json[key].get<std::string>()).value_or(0) : 0;
    };
    const std::int64_t from = time(both, "started_at");
    const std::int64_t added_from = time(more, "started_at");
    if (added_from != 0 && (from == 0 || added_from < from)) both["started_at"] = more["started_at"];
    const bool open = both.value("completed_at", Json()).is_null() || more["completed_at"].is_null();
    if (open) {
        both["completed_at"] = nullptr;
    } else if (time(more, "completed_at") > time(both, "completed_at")) {
        both["completed_at"] = more["completed_at"];
    }
    const std::int64_t began = time(both, "started_at");
    const std::int64_t ended = std::max(time(both, "completed_at"), time(more, "completed_at"));
    if (!open && began != 0 && ended >= began) both["duration_ms"] = static_cast<double>(ended - began) / 1e6;
    constexpr std::string_view kWorst[] = {"unfinished", "error"};
    for (const std::string_view status : kWorst) {
        if (more["status"] == status || both.value("status", Json()) == status) {
            both["status"] = status;
            break;
        }
    }
    for (const char *sum : {"lock_wait_ms", "lock_hold_ms", "spans_dropped"}) {
        if (both.contains(sum) && both[sum].is_number()) {
            if (both[sum].is_number_integer() && more[sum].is_number_integer()) {
                both[sum] = both[sum].get<std::int64_t>() + more[sum].get<std::int64_t>();
            } else {
                both[sum] = both[sum].get<double>() + more[sum].get<double>();
            }
        }
    }
    return dump(both);
}

// Held while a trace is read, joined and written.
class Joining {
  public:
    explicit Joining(const Session &session) {
        auto opened = FileLock::open(open_traces_dir(session) + "/join", FileLock::Recorded::no);
        if (!opened) return;
        lock_.emplace(std::move(*opened));
        try {
            locked_ = lock_->try_lock_for(kJoinPatience);
        } catch (const std::system_error &) {  // a file system without locks: then without one
            locked_ = false;
        }
    }
    ~Joining() {
        if (locked_) lock_->unlock();
    }
    Joining(const Joining &) = delete;
    Joining &operator=(const Joining &) = delete;

  private:
    std::optional<FileLock> lock_;
    bool locked_ = false;
};

Result<std::string> write_joined(const Session &session, const OperationRecord &operation) {
    const std::string path = fmt::format("{}/{}.json", traces_dir(session), operation.trace_id);
    std::string document = trace_document(operation);
    if (::access(path.c_str(), F_OK) == 0) {
        const auto present = read_record(path);
        if (!present) return present.error();
        if (auto both = joined(*present, document)) document = std::move(*both);
    }
    if (auto written = replace_record(path, document); !written) return written.error();
    return path;
}

}  // namespace

std::string trace_document(const OperationRecord &operation) {
    std::map<std::uint32_t, const std::string *> names;
    for (const SpanRecord &span : operation.spans) names[span.id] = &span.name;
    const SpanRecord *root = root_of(operation);
    const std::int64_t from = root != nullptr ? root->begin_utc_ns : operation.begin_utc_ns;
    const std::int64_t to = operation.finished && root != nullptr ? root->end_utc_ns : 0;

    std::string out = "{\"trace_id\":";
    append_json_string(out, operation.trace_id);
    out += ",\"command\":[";
    for (std::size_t i = 0; i < operation.command.size(); ++i) {
        if (i != 0) out += ',';
        append_json_string(out, operation.command[i]);
    }
    out += ']';
    append_time(out, "started_at", from);
    append_time(out, "completed_at", to);
    append_ms(out, "duration_ms", (to != 0 ? to : operation.last_utc_ns) - from);
    const bool failed = root != nullptr && root->status == SpanStatus::error;
    append_field(out, "status", to == 0 ? "unfinished" : failed ? "error" : "ok");
    if (failed && !root->error.empty()) append_field(out, "error", root->error);
    out += ",\"spans\":[";
    std::string_view comma = "\n";
    for (const SpanRecord &span : operation.spans) {
        const auto parent = names.find(span.parent);
        out += comma;
        append_span(out, span, parent == names.end() ? nullptr : parent->second, operation.last_utc_ns);
        comma = ",\n";
    }
    out += "\n]";
    append_field(out, "operation", operation.operation);
    append_field(out, "session_id", operation.session_id);
    out += fmt::format(",\"pid\":{}", operation.pid);
    append_field(out, "process", operation.process);
    append_ms(out, "lock_wait_ms", static_cast<std::int64_t>(operation.lock_wait_ns));
    append_ms(out, "lock_hold_ms", static_cast<std::int64_t>(operation.lock_hold_ns));
    out += fmt::format(",\"spans_dropped\":{}}}\n", operation.dropped);
    return out;
}

Result<std::string> write_trace(const Session &session, const OperationRecord &operation) {
    if (auto made = make_record_folder(open_traces_dir(session)); !made) return made.error();
    const Joining joining(session);
    return write_joined(session, operation);
}

void finish_abandoned_traces(const Session &session) {
    std::vector<std::string> abandoned;
    for (const std::string &name : list_records(open_traces_dir(session), "")) {
        const std::string path = open_traces_dir(session) + '/' + name;
        if (name != "join" && SpanJournal::is_abandoned(path)) abandoned.push_back(path);
    }
    if (abandoned.empty()) return;
    const Joining joining(session);
    for (const std::string &path : abandoned) {
        if (::access(path.c_str(), F_OK) != 0) continue;  // somebody else was first
        const auto operation = SpanJournal::read_file(path);
        if (!operation) continue;
        if (operation->finished || write_joined(session, *operation)) ::unlink(path.c_str());
    }
}

}  // namespace planloop
