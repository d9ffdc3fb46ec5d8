// The report for people: the timeline, one line for each event in the form that planloop's quick reference promises,
//
//     tr_abc: lock_acquired (wait: 2344ms) 08:00:02.350   flock 4711   /tmp/a   waited for flock 4710 (2344ms)
//
// then what it means: the verdict, the findings as plain sentences, who holds and who waits at the end, and the tables.
// Times of day are UTC, cut to the millisecond so that they never run ahead.
//
// Threads: pure functions; a style is a value.
#ifndef PLANLOOP_ANALYSIS_RENDER_TEXT_H
#define PLANLOOP_ANALYSIS_RENDER_TEXT_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "analysis/report.h"

namespace planloop::analysis {

struct TextStyle {
    bool colour = false;
    std::size_t columns = 80;  // sentences are folded to this width
};

// Appends one line, newline included.
void append_text(std::string &out, const TimelineEntry &entry, const TextStyle &style);

// Everything but the timeline.
std::string render_text(const Report &report, const TextStyle &style);

// Present waiters by lock, in the order in which they came; `waiting` must be sorted so.
std::string render_waiting(const Report &report, const TextStyle &style);

// Folds at spaces to `columns`, each line behind `indent`. A word longer than a line keeps its own.
void append_folded(std::string &out, std::string_view text, std::string_view indent, std::size_t columns);

// One sentence, without a newline: how many processes, events and locks, and the longest wait.
std::string recorded_sentence(const Report &report);
// One sentence: what options chose a part of the report, and how many findings are not in it.
std::string shown_sentence(const Report &report);
// One sentence: the worst finding, or that there is none.
std::string verdict_sentence(const Report &report);

// "2344ms", "1.234s", "17us", "0": two to four digits that a person can compare at a glance.
std::string short_duration(std::int64_t ns);

}  // namespace planloop::analysis

#endif
