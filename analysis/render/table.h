// Columns for people. Numbers stand right, words left; the last column is never padded or cut, so paths go there.
// Cells are expected to be safe for a terminal already (escape.h). Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_RENDER_TABLE_H
#define PLANLOOP_ANALYSIS_RENDER_TABLE_H

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
    };

    explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
    void add_row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }  // one cell a column
    void append_to(std::string &out, const std::string &indent = {}) const;

  private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace planloop::analysis

#endif
