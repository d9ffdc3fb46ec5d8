#include "lockcore/recorder_process.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/process_status.h"
#include "lockcore/recorder.h"
#include "lockcore/trace_id.h"
#include "lockcore/wire/size_text.h"

namespace planloop::recording {
namespace {

struct MarkPage {
    std::atomic<std::uint32_t> mark;       // 0: not attached
    std::atomic<std::uint32_t> attaching;  // spin lock; wiped with the page, so no child finds it taken
};

constexpr std::atomic<std::uint32_t> kNoMark{0};

std::atomic<MarkPage *> page_of_marks{nullptr};
std::uint32_t last_mark = 0;  // copied by fork, so no child uses a mark of its parent's again

ProcessWriter process;
wire::ToldModules told;

// Guarded by Attaching. Never destroyed: locks are used while the program's static objects go.
struct Recording {
    std::string problem;
    std::unique_ptr<Session> chosen;
    // Spools stay open: another thread may still be writing its last record into the one before.
    std::vector<std::unique_ptr<wire::SpoolWriter>> spools;
    std::string spool_of_session;
    std::string portrait;  // payload of the `process` record; changes only while the process attaches
};
Recording &kept() {
    static auto *const state = new Recording;
    return *state;
}

MarkPage *make_page() noexcept {
    void *memory = mmap(nullptr, wire::kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    MarkPage *nobody = nullptr;
    auto *page = static_cast<MarkPage *>(memory);
    if (madvise(memory, wire::kPageBytes, MADV_WIPEONFORK) != 0 ||
        !page_of_marks.compare_exchange_strong(nobody, page, std::memory_order_acq_rel)) {
        munmap(memory, wire::kPageBytes);
        return nobody;
    }
    process_mark.store(&page->mark, std::memory_order_release);
    return page;
}

class Attaching {
  public:
    explicit Attaching(MarkPage &page) noexcept : page_(page) {
        while (page_.attaching.exchange(1, std::memory_order_acquire) != 0) wire::raw_syscall(SYS_sched_yield);
    }
    ~Attaching() { page_.attaching.store(0, std::memory_order_release); }
    Attaching(const Attaching &) = delete;
    Attaching &operator=(const Attaching &) = delete;

  private:
    MarkPage &page_;
};

const wire::ShimLink *find_shim(bool &unknown_version) noexcept {
    using Find = const wire::ShimLink *() noexcept;
    auto *find = reinterpret_cast<Find *>(dlsym(RTLD_DEFAULT, wire::kShimLinkSymbol));
    const wire::ShimLink *link = find != nullptr ? find() : nullptr;
    unknown_version =
        link != nullptr && (link->version != wire::kShimLinkVersion || link->format_version != wire::kFormatVersion);
    return unknown_version ? nullptr : link;
}

std::string read_link(const char *path) {
    char target[4096];
    const ssize_t length = readlink(path, target, sizeof(target));
    return {target, length > 0 ? static_cast<std::size_t>(length) : 0};
}

void write_portrait(wire::StreamWriter &stream, const wire::WriterIdentity &who, std::uint8_t flags) noexcept {
    const wire::TextPiece piece{kept().portrait.data(), kept().portrait.size()};
    wire::Record *record = stream.claim_with_text(*process.spool, who, &piece, 1);
    if (record == nullptr) return;
    record->kind = wire::RecordKind::process;
    record->flags = flags;
    record->begin = process.spool->ticks();
    stream.publish(record, wire::State::complete);
}

// The process image introduces itself, on the stream of the thread that attaches it.
void introduce(std::uint32_t parent_process, std::uint32_t mark) {
    wire::ProcessBody body{};
    body.pid = process.identity.pid;
    body.parent_pid = getppid();
    body.start_time = own_process_status().value_or(ProcessStatus()).start_time;
    body.uid = getuid();
    body.parent_process = parent_process;
    const std::string texts[] = {own_command_line(), read_link("/proc/self/exe"), read_link("/proc/self/cwd"),
                                 process_trace_id(), std::string()};
    std::string &portrait = kept().portrait;
    portrait.assign(reinterpret_cast<const char *>(&body), sizeof(body));
    for (const std::string &text : texts) portrait.append(text.c_str(), text.size() + 1);
    wire::StreamWriter &stream = writer.own;
    stream.forget();
    writer.own_mark = mark;
    wire::WriterIdentity who = process.identity;
    who.tid = gettid();
    write_portrait(stream, who, 0);
}

void note_exit(int status, void *) {
    if (process.spool == nullptr || process.identity.pid != getpid()) return;
    Writer *me = enter();
    if (me == nullptr || me->shim != nullptr) return;
    wire::Record *record = me->stream->claim(*me->spool, me->who);
    if (record == nullptr) return;
    record->kind = wire::RecordKind::exit;
    record->fd = -1;
    record->a = static_cast<std::uint64_t>(wire::ExitCause::exit);
    record->b = static_cast<std::uint64_t>(status);
    record->begin = me->spool->ticks();
    me->stream->publish(record, wire::State::complete);
    me->spool->leave_clocks();
}

// The session to record into; nothing: none is asked for.
Result<std::unique_ptr<Session>> wanted_session() {
    const char *refused = std::getenv("PLANLOOP_NO_RECORDING");  // NOLINT(concurrency-mt-unsafe)
    if (refused != nullptr && std::strcmp(refused, "1") == 0) return std::unique_ptr<Session>();
    if (kept().chosen) return std::make_unique<Session>(*kept().chosen);
    const char *id = std::getenv("PLANLOOP_SESSION");  // NOLINT(concurrency-mt-unsafe)
    if (id == nullptr || *id == '\0') return std::unique_ptr<Session>();
    const std::string_view text(id);
    auto session = create_session(text.substr(0, text.find('!')));  // behind it: what the preloaded library inherits
    if (!session) return session.error();
    return std::make_unique<Session>(std::move(*session));
}

Result<void> open_spool() {
    auto session = wanted_session();
    process.spool = nullptr;
    if (!session) return session.error();
    if (*session == nullptr) return {};
    const std::string folder = (*session)->spool_dir();
    if (kept().spool_of_session != folder) {
        kept().spools.push_back(std::make_unique<wire::SpoolWriter>());
        std::uint64_t ring_bytes = 0;
        const char *ring = std::getenv("PLANLOOP_RING");  // NOLINT(concurrency-mt-unsafe)
        if (ring != nullptr) wire::parse_size(ring, ring_bytes);
        const int error = kept().spools.back()->open(folder.c_str(), wire::kDefaultLimitBytes, ring_bytes);
        if (error != 0) {
            kept().spools.pop_back();
            return Error{fmt::format("nothing is recorded: cannot open a spool in {}: {}", printable(folder),
                                     std::strerror(-error))};  // NOLINT(concurrency-mt-unsafe)
        }
        kept().spool_of_session = folder;
    }
    process.spool = kept().spools.back().get();
    return {};
}

void attach_process(std::uint32_t mark) {
    bool unknown_version = false;
    process.shim = find_shim(unknown_version);
    shim_in_process.store(process.shim, std::memory_order_relaxed);
    if (process.shim != nullptr) return;
    if (unknown_version) {
        kept().problem = "locks are left to the preloaded library, which is of another version";
        return;
    }
    if (auto opened = open_spool(); !opened) {
        kept().problem = opened.error().message;
        return;
    }
    if (process.spool == nullptr) return;
    const std::uint32_t parent = process.identity.process;  // of the process that forked us
    process.identity.pid = getpid();
    process.identity.process = process.spool->header().next_process.fetch_add(1, std::memory_order_relaxed);
    introduce(parent, mark);
    static const int registered = on_exit(note_exit, nullptr);
    static_cast<void>(registered);
}

std::uint32_t attach_under_lock(MarkPage &page) noexcept {
    kept().problem.clear();
    told.clear();
    const std::uint32_t mark = ++last_mark;
    try {
        attach_process(mark);
    } catch (const std::exception &error) {
        process.spool = nullptr;
        kept().problem = error.what();
    }
    page.mark.store(mark, std::memory_order_release);
    return mark;
}

MarkPage *page_for_marks() noexcept {
    MarkPage *page = page_of_marks.load(std::memory_order_acquire);
    return page != nullptr ? page : make_page();
}

}  // namespace

std::atomic<const std::atomic<std::uint32_t> *> process_mark{&kNoMark};

std::uint32_t attach() noexcept {
    MarkPage *page = page_for_marks();
    if (page == nullptr) return 0;
    if (const std::uint32_t mark = page->mark.load(std::memory_order_acquire); mark != 0) return mark;
    const Attaching attaching(*page);
    const std::uint32_t mark = page->mark.load(std::memory_order_acquire);
    return mark != 0 ? mark : attach_under_lock(*page);
}

void repeat_introduction() noexcept {
    write_portrait(writer.own, writer.who, wire::kRepeated);
}

wire::ToldModules &told_modules() noexcept {
    return told;
}

const ProcessWriter &process_writer() noexcept {
    return process;
}

}  // namespace planloop::recording

namespace planloop {

Result<void> record_into(const Session &session) {
    using namespace recording;
    auto made = create_session(session.id);
    if (!made) return made.error();
    MarkPage *page = page_for_marks();
    if (page == nullptr) return Error{"nothing is recorded: no memory"};
    const Attaching attaching(*page);
    kept().chosen = std::make_unique<Session>(session);
    attach_under_lock(*page);
    if (!kept().problem.empty()) return Error{kept().problem};
    return {};
}

std::string recording_problem() {
    using namespace recording;
    if (attach() == 0) return "nothing is recorded: no memory";
    const Attaching attaching(*page_for_marks());
    return kept().problem;
}

}  // namespace planloop
