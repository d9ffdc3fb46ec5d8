#include "analysis/render/table.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "analysis/render/escape.h"

namespace planloop::analysis {

void TextTable::append_to(std::string &out, const std::string &indent) const {
    std::vector<std::size_t> widths;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::size_t width = display_width(columns_[i].title);
        for (const auto &row : rows_) width = std::max(width, display_width(row[i]));
        widths.push_back(width);
    }
    const auto append_line = [&](const auto &cell_of) {
        out += indent;
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            const std::string_view cell = cell_of(i);
            const std::size_t padding = widths[i] - display_width(cell);
            const bool right = columns_[i].align == Align::right;
            if (i != 0) out += "  ";
            if (right) out.append(padding, ' ');
            out += cell;
            if (!right && i + 1 != columns_.size()) out.append(padding, ' ');
        }
        out.push_back('\n');
    };
    append_line([&](std::size_t i) { return std::string_view(columns_[i].title); });
    for (const auto &row : rows_) append_line([&](std::size_t i) { return std::string_view(row[i]); });
}

}  // namespace planloop::analysis
