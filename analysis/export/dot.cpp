// Graphviz: two graphs in one. The order of locks: an arrow from a lock to one that was asked for while the first was
// held, with how often; red where a finding says that such orders met or can meet in a circle. And who waits for whom
// when the recording ends, together with the circles of every deadlock that was found, red, whenever it was.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "analysis/export/format.h"
#include "analysis/render/escape.h"
#include "analysis/render/names.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kLongestLabel = 200;

// A quoted string of the DOT language, in which a backslash before a quote would be one too many.
std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : terminal_text(text)) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
    }
    return out + '"';
}

// The end of a path says more than its beginning. Cut between characters.
std::string short_path(std::string_view path) {
    if (path.size() <= kLongestLabel) return std::string(path);
    path.remove_prefix(path.size() - kLongestLabel);
    while (!path.empty() && (static_cast<unsigned char>(path.front()) & 0xc0u) == 0x80u) path.remove_prefix(1);
    return "…" + std::string(path);
}

using Arrow = std::pair<std::string, std::string>;

class Dot : public Exporter {
  public:
    explicit Dot(const Write &write) : write_(write) {}

    void finish(const Report &report) override {
        for (const LockRow &row : report.locks) paths_[row.id] = row.path;
        std::string out = "// Made by planloop; to see it: dot -Tsvg FILE\ndigraph planloop {\n";
        out += fmt::format("  label={};\n", quoted("Locks of session " + report.session));
        out += "  node [fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9];\n";
        add_order(report, out);
        add_waits(report, out);
        write_(out + "}\n");
    }

  private:
    std::string lock_label(const std::string &id) const {
        const auto at = paths_.find(id);
        const std::string path = at == paths_.end() ? std::string() : at->second;
        return path.empty() ? quoted(id) : quoted(short_path(path) + " (" + id.substr(0, id.find(':')) + ")");
    }
    void add_lock(std::string_view prefix, const std::string &id, std::string &out) const {
        out += fmt::format("    {} [shape=box, label={}, tooltip={}];\n", quoted(std::string(prefix) + id),
                           lock_label(id), quoted(id));
    }

    void add_order(const Report &report, std::string &out) const {
        std::set<Arrow> circles;
        for (const Finding &finding : report.findings)
            if (finding.kind == "deadlock" || finding.kind == "lock_order_inversion" ||
                finding.kind == "upgrade_deadlock")
                for (const Participant &one : finding.participants)
                    for (const std::string &held : one.holds) circles.emplace(held, one.waits_for);
        out += "  subgraph cluster_order {\n    label=\"Lock order: held -> asked for\";\n";
        std::set<std::string> locks;
        for (const LockOrder &one : report.order) {
            locks.insert(one.held);
            locks.insert(one.wanted);
        }
        if (locks.empty())
            out += "    order_none [shape=plaintext, label=\"no lock was asked for while another was held\"];\n";
        for (const std::string &id : locks) add_lock("order ", id, out);
        for (const LockOrder &one : report.order) {
            out += fmt::format("    {} -> {} [label=\"{}x\"{}];\n", quoted("order " + one.held),
                               quoted("order " + one.wanted), one.times,
                               circles.count({one.held, one.wanted}) == 0 ? "" : ", color=red, penwidth=2");
        }
        out += "  }\n";
    }

    void add_waits(const Report &report, std::string &out) const {
        std::map<std::string, std::string> threads;  // node, label
        std::set<std::string> locks;
        std::map<Arrow, std::string> arrows;  // with their attributes
        const auto thread = [&](std::int32_t pid, std::int32_t tid, const std::string &process) {
            std::string node = fmt::format("thread {} {}", pid, tid);
            std::string label = pid == 0 ? std::string("not traced") : fmt::format("{} {}", process, pid);
            if (pid != tid) label += fmt::format(" thread {}", tid);
            threads.emplace(node, label);
            return node;
        };
        for (const Finding &finding : report.findings) {
            if (finding.kind != "deadlock" && finding.kind != "self_deadlock") continue;
            for (const Participant &one : finding.participants) {
                const std::string node = thread(one.pid, one.tid, one.process);
                for (const std::string &held : one.holds) {
                    locks.insert(held);
                    arrows.emplace(Arrow("lock " + held, node), "label=\"held by\", color=red");
                }
                for (const std::string &held : one.parent_holds) {
                    locks.insert(held);
                    arrows.emplace(Arrow("lock " + held, node), "label=\"held by who waits for\", color=red");
                }
                if (one.waits_for.empty()) continue;
                locks.insert(one.waits_for);
                arrows.emplace(Arrow(node, "lock " + one.waits_for), "label=\"waits for\", color=red, penwidth=2");
            }
        }
        for (const WaitingRequest &one : report.waiting) {
            locks.insert(one.lock);
            arrows.emplace(Arrow(thread(one.pid, one.tid, one.process), "lock " + one.lock),
                           fmt::format("label=\"waits for, {}\"", mode_name(one.mode)));
        }
        std::set<std::string> awaited;
        for (const WaitingRequest &one : report.waiting) awaited.insert(one.lock);
        for (const HeldLock &one : report.held) {
            if (awaited.count(one.lock) == 0) continue;
            locks.insert(one.lock);
            arrows.emplace(Arrow("lock " + one.lock, thread(one.pid, one.tid, one.process)),
                           fmt::format("label=\"held by, {}\"", mode_name(one.mode)));
        }
        out += "  subgraph cluster_waits {\n    label=\"Who waits for whom\";\n";
        if (arrows.empty()) out += "    waits_none [shape=plaintext, label=\"nobody waits\"];\n";
        for (const auto &[node, label] : threads)
            out += fmt::format("    {} [shape=ellipse, label={}];\n", quoted(node), quoted(label));
        for (const std::string &id : locks) add_lock("lock ", id, out);
        for (const auto &[arrow, attributes] : arrows)
            out += fmt::format("    {} -> {} [{}];\n", quoted(arrow.first), quoted(arrow.second), attributes);
        out += "  }\n";
    }

    const Write &write_;
    std::map<std::string, std::string> paths_;
};

}  // namespace

std::unique_ptr<Exporter> make_dot(const Write &write) {
    return std::make_unique<Dot>(write);
}

}  // namespace planloop::analysis
