// The words by which JSON and text call the values of a report. Threads: pure functions.
#ifndef PLANLOOP_ANALYSIS_RENDER_NAMES_H
#define PLANLOOP_ANALYSIS_RENDER_NAMES_H

#include <string_view>

#include "analysis/report.h"

namespace planloop::analysis {

constexpr std::string_view event_name(EventKind kind) {
    switch (kind) {
        case EventKind::lock_requested:
            return "lock_requested";
        case EventKind::lock_acquired:
            return "lock_acquired";
        case EventKind::lock_failed:
            return "lock_failed";
        case EventKind::lock_released:
            return "lock_released";
        default:
            return "other";
    }
}

constexpr std::string_view mode_name(wire::Mode mode) {
    switch (mode) {
        case wire::Mode::shared:
            return "shared";
        case wire::Mode::exclusive:
            return "exclusive";
        default:
            return "none";
    }
}

constexpr std::string_view family_name(wire::Family family) {
    const auto index = static_cast<std::size_t>(family);
    return index < wire::kFamilyCount ? wire::kFamilies[index].name : "unknown";
}

constexpr std::string_view severity_name(Severity severity) {
    switch (severity) {
        case Severity::info:
            return "info";
        case Severity::warning:
            return "warning";
        default:
            return "error";
    }
}

constexpr std::string_view certainty_name(Certainty certainty) {
    switch (certainty) {
        case Certainty::possible:
            return "possible";
        case Certainty::likely:
            return "likely";
        default:
            return "confirmed";
    }
}

constexpr std::string_view certainty_name(EndCertainty certainty) {
    return certainty == EndCertainty::exact ? "exact" : "approximate";
}

}  // namespace planloop::analysis

#endif
