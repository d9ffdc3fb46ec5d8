// CSV as RFC 4180 has it, with a line of names and `\n` between rows; columns: row.h. Text is always in quotes,
// numbers, times and flags never, so that a reader which guesses types guesses right; what is not known is empty.
#include <fmt/format.h>

#include <iterator>
#include <string>

#include "analysis/export/row.h"
#include "lockcore/jsonl.h"

namespace planloop::analysis {
namespace {

class Names {
  public:
    std::string line;

    void text(std::string_view name, std::string_view) { add(name); }
    void time(std::string_view name, std::optional<std::int64_t>) { add(name); }
    template <class T>
    void number(std::string_view name, std::optional<T>) {
        add(name);
    }
    void flag(std::string_view name, bool) { add(name); }

  private:
    void add(std::string_view name) {
        if (!line.empty()) line += ',';
        line += name;
    }
};

class Values {
  public:
    std::string line;

    void text(std::string_view, std::string_view value) {
        begin();
        utf8_.clear();
        append_utf8(utf8_, value);
        line += '"';
        for (const char c : utf8_) {
            if (c == '"') line += '"';
            line += c;
        }
        line += '"';
    }
    void time(std::string_view, std::optional<std::int64_t> utc_ns) {
        begin();
        if (utc_ns) append_microseconds_utc(line, *utc_ns);
    }
    template <class T>
    void number(std::string_view, std::optional<T> value) {
        begin();
        if (value) fmt::format_to(std::back_inserter(line), "{}", *value);
    }
    void flag(std::string_view, bool value) {
        begin();
        line += value ? "true" : "false";
    }
    void reset() {
        line.clear();
        first_ = true;
    }

  private:
    void begin() {
        if (!first_) line += ',';
        first_ = false;
    }

    bool first_ = true;
    std::string utf8_;
};

class Csv : public Exporter {
  public:
    explicit Csv(const Write &write) : write_(write) {
        Names names;
        visit_columns({}, names);
        write_(names.line + '\n');
    }

    void acquisition(const Acquisition &taken) override {
        row_.reset();
        visit_columns(taken, row_);
        row_.line += '\n';
        write_(row_.line);
    }
    void finish(const Report & /*report*/) override {}

  private:
    const Write &write_;
    Values row_;
};

}  // namespace

std::unique_ptr<Exporter> make_csv(const Write &write) {
    return std::make_unique<Csv>(write);
}

}  // namespace planloop::analysis
