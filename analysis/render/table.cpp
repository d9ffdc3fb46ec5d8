#include "analysis/render/table.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "analysis/render/escape.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kGap = 2;
constexpr std::size_t kGoodLast = 32;   // of the last column: other columns go before it is cut shorter
constexpr std::size_t kLeastLast = 12;  // when there are none left to go

// Its last part in `width` columns.
std::string cut_left(const std::string &text, std::size_t width) {
    if (display_width(text) <= width) return text;
    std::size_t begin = text.size();
    for (std::size_t used = 0; begin > 0; --begin) {
        const bool starts = (static_cast<unsigned char>(text[begin - 1]) & 0xc0) != 0x80;
        if (starts && ++used > width - 3) break;
    }
    while (begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) ++begin;
    return "..." + text.substr(begin);
}

}  // namespace

void TextTable::append_to(std::string &out, const std::string &indent, std::size_t width) const {
    std::vector<std::size_t> widths;
    std::size_t total = indent.size();
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        widths.push_back(display_width(columns_[i].title));
        for (const auto &row : rows_) widths[i] = std::max(widths[i], display_width(row[i]));
        total += widths[i] + (i == 0 ? 0 : kGap);
    }
    std::vector<bool> shown(columns_.size(), true);
    const std::size_t last = columns_.size() - 1;
    while (total > width && total - widths[last] + std::min(widths[last], kGoodLast) > width) {
        std::size_t worst = last;
        for (std::size_t i = 0; i < last; ++i)
            if (shown[i] && columns_[i].rank > 0 && (worst == last || columns_[i].rank > columns_[worst].rank))
                worst = i;
        if (worst == last) break;
        shown[worst] = false;
        total -= widths[worst] + kGap;
    }
    const std::size_t others = total - widths[last];
    const std::size_t last_width =
        total > width ? std::max(kLeastLast, width > others ? width - others : 0) : widths[last];
    const auto append_line = [&](const auto &cell_of) {
        out += indent;
        bool first = true;
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (!shown[i]) continue;
            const std::string cell = i == last ? cut_left(cell_of(i), last_width) : cell_of(i);
            const std::size_t used = display_width(cell);
            const std::size_t padding = widths[i] > used ? widths[i] - used : 0;
            const bool right = columns_[i].align == Align::right;
            if (!first) out.append(kGap, ' ');
            first = false;
            if (right) out.append(padding, ' ');
            out += cell;
            if (!right && i != last) out.append(padding, ' ');
        }
        out.push_back('\n');
    };
    append_line([&](std::size_t i) { return columns_[i].title; });
    for (const auto &row : rows_) append_line([&](std::size_t i) { return row[i]; });
}

}  // namespace planloop::analysis
