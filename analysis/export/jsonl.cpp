// One JSON object a line; columns: row.h. What is not known is null, so that every line has every column.
#include "lockcore/jsonl.h"

#include <fmt/format.h>

#include <iterator>
#include <string>

#include "analysis/export/row.h"

namespace planloop::analysis {
namespace {

class Members {
  public:
    std::string line;

    void text(std::string_view name, std::string_view value) {
        begin(name);
        append_json_string(line, value);
    }
    void time(std::string_view name, std::optional<std::int64_t> utc_ns) {
        begin(name);
        if (!utc_ns) {
            line += "null";
            return;
        }
        line += '"';
        append_microseconds_utc(line, *utc_ns);
        line += '"';
    }
    template <class T>
    void number(std::string_view name, std::optional<T> value) {
        begin(name);
        if (value)
            fmt::format_to(std::back_inserter(line), "{}", *value);
        else
            line += "null";
    }
    void flag(std::string_view name, bool value) {
        begin(name);
        line += value ? "true" : "false";
    }

  private:
    void begin(std::string_view name) {
        line += line.empty() ? "{\"" : ",\"";
        line += name;
        line += "\":";
    }
};

class Jsonl : public Exporter {
  public:
    explicit Jsonl(const Write &write) : write_(write) {}

    void acquisition(const Acquisition &taken) override {
        row_.line.clear();
        visit_columns(taken, row_);
        row_.line += "}\n";
        write_(row_.line);
    }
    void finish(const Report & /*report*/) override {}

  private:
    const Write &write_;
    Members row_;
};

}  // namespace

std::unique_ptr<Exporter> make_jsonl(const Write &write) {
    return std::make_unique<Jsonl>(write);
}

}  // namespace planloop::analysis
