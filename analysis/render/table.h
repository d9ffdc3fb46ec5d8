// Columns for people. Numbers stand right, words left; the last column is never padded, so paths go there. A table that
// is wider than it may be leaves out columns, those of the highest `rank` first, and then cuts the last one from the
// left, where paths are least telling.
// Cells are expected to be safe for a terminal already (escape.h). Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_RENDER_TABLE_H
#define PLANLOOP_ANALYSIS_RENDER_TABLE_H

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace planloop::analysis {

class TextTable {
  public:
    enum class Align { left, right };
    struct Column {
        std::string title;
        Align align = Align::left;
        int rank = 0;  // 0: never left out
    };
    static constexpr std::size_t kAnyWidth = static_cast<std::size_t>(-1);

    explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
    void add_row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }  // one cell a column
    void append_to(std::string &out, const std::string &indent = {}, std::size_t width = kAnyWidth) const;

  private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace planloop::analysis

#endif
