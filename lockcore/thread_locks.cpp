#include "lockcore/thread_locks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "lockcore/span_of_thread.h"
#include "lockcore/wire/ticks.h"

namespace planloop {

namespace recording {

constinit std::atomic<int> lock_watchers{0};

namespace {

constexpr std::size_t kPlaces = 32;
constexpr std::size_t kPathBytes = 256;

struct Place {
    std::atomic<const void *> key{nullptr};  // nullptr: free
    wire::Family family{};
    wire::Mode mode{};
    bool held = false;
    const char *path = nullptr;
    std::int64_t since_utc_ns = 0;
};

// Of a wait that failed; its lock may be gone by the time that somebody asks.
struct FailedWait {
    int error = 0;  // 0: none
    wire::Family family{};
    wire::Mode mode{};
    std::int64_t since_utc_ns = 0, until_utc_ns = 0;
    char path[kPathBytes]{};
};

struct Table {
    std::array<Place, kPlaces> places{};
    std::atomic<std::size_t> used{0};  // behind these all places are free; only the thread itself changes it
    FailedWait failed{};
    std::uint64_t overflowed = 0;
    Table *next = nullptr;
    bool listed = false;
};
constinit thread_local Table table;

// For releases by other threads.
std::mutex list_mutex;
Table *list_of_tables = nullptr;

class Listing {
  public:
    Listing() {
        const std::lock_guard guard(list_mutex);
        table.next = list_of_tables;
        list_of_tables = &table;
        table.listed = true;
    }
    ~Listing() {
        const std::lock_guard guard(list_mutex);
        for (Table **at = &list_of_tables; *at != nullptr; at = &(*at)->next) {
            if (*at != &table) continue;
            *at = table.next;
            break;
        }
    }
    Listing(const Listing &) = delete;
    Listing &operator=(const Listing &) = delete;
};

void list_table() {
    if (table.listed) return;
    thread_local const Listing listing;
    static_cast<void>(listing);
}

std::int64_t now_utc_ns() noexcept {
    return static_cast<std::int64_t>(wire::clock_ns(CLOCK_REALTIME));
}

Place *find(Table &in, const void *key, bool held) noexcept {
    // The newest: shared holds of one lock may be there twice.
    for (std::size_t i = in.used.load(std::memory_order_acquire); i-- > 0;) {
        Place &place = in.places[i];
        if (place.key.load(std::memory_order_relaxed) == key && place.held == held) return &place;
    }
    return nullptr;
}

Place *add(const LockNote &lock, bool held) noexcept {
    list_table();
    const std::size_t used = table.used.load(std::memory_order_relaxed);
    for (std::size_t i = 0; i < kPlaces; ++i) {
        Place &place = table.places[i];
        if (place.key.load(std::memory_order_relaxed) != nullptr) continue;
        place.family = lock.family;
        place.mode = lock.mode;
        place.held = held;
        place.path = lock.path;
        place.since_utc_ns = now_utc_ns();
        place.key.store(lock.key, std::memory_order_release);
        if (i >= used) table.used.store(i + 1, std::memory_order_release);
        return &place;
    }
    ++table.overflowed;
    return nullptr;
}

// Of the thread's own table.
void leave(Place &place) noexcept {
    place.key.store(nullptr, std::memory_order_relaxed);
    std::size_t used = table.used.load(std::memory_order_relaxed);
    while (used > 0 && table.places[used - 1].key.load(std::memory_order_relaxed) == nullptr) --used;
    table.used.store(used, std::memory_order_relaxed);
}

}  // namespace

void note_wait(const LockNote &lock) noexcept {
    table.failed.error = 0;
    add(lock, false);
}

void note_held(const LockNote &lock) noexcept {
    Place *place = find(table, lock.key, false);
    if (place == nullptr) {
        add(lock, true);
        return;
    }
    const std::int64_t now = now_utc_ns();
    const std::int64_t waited_ns = now - place->since_utc_ns;
    place->held = true;
    place->since_utc_ns = now;
    count_lock_wait(lock, waited_ns);
}

void note_failed(const LockNote &lock, int error) noexcept {
    Place *place = find(table, lock.key, false);
    if (place == nullptr) return;
    const std::int64_t now = now_utc_ns();
    const std::int64_t since = place->since_utc_ns;
    leave(*place);
    count_lock_wait(lock, now - since);
    if (error == EAGAIN || error == EBUSY) return;  // of a try, which did not wait
    FailedWait &failed = table.failed;
    failed.error = error;
    failed.family = lock.family;
    failed.mode = lock.mode;
    failed.since_utc_ns = since;
    failed.until_utc_ns = now;
    failed.path[0] = '\0';
    if (lock.path != nullptr) std::strncat(failed.path, lock.path, kPathBytes - 1);
}

void note_released(const LockNote &lock) noexcept {
    Place *place = find(table, lock.key, true);
    if (place != nullptr) {
        count_lock_hold(now_utc_ns() - place->since_utc_ns);
        leave(*place);
        return;
    }
    const std::lock_guard guard(list_mutex);
    for (Table *other = list_of_tables; other != nullptr; other = other->next) {
        place = find(*other, lock.key, true);
        if (place == nullptr) continue;
        count_lock_hold(now_utc_ns() - place->since_utc_ns);
        place->key.store(nullptr, std::memory_order_relaxed);
        return;
    }
}

void for_each_lock(void (*visit)(const RawLock &, void *), void *context) noexcept {
    for (const Place &place : table.places) {
        if (place.key.load(std::memory_order_acquire) == nullptr) continue;
        visit({place.family, place.mode, place.held, place.path, place.since_utc_ns}, context);
    }
}

}  // namespace recording

ThreadLocks locks_of_thread() {
    ThreadLocks locks;
    recording::for_each_lock(
        [](const recording::RawLock &lock, void *context) {
            ThreadLock found;
            found.family = wire::kFamilies[static_cast<std::size_t>(lock.family)].name;
            found.path = lock.path == nullptr ? "" : lock.path;
            found.shared = lock.mode == wire::Mode::shared;
            found.since_utc_ns = lock.since_utc_ns;
            auto &to = *static_cast<ThreadLocks *>(context);
            (lock.held ? to.held : to.awaited).push_back(std::move(found));
        },
        &locks);
    const recording::FailedWait &failed = recording::table.failed;
    if (failed.error != 0) {
        ThreadLock wait;
        wait.family = wire::kFamilies[static_cast<std::size_t>(failed.family)].name;
        wait.path = failed.path;
        wait.shared = failed.mode == wire::Mode::shared;
        wait.since_utc_ns = failed.since_utc_ns;
        wait.until_utc_ns = failed.until_utc_ns;
        wait.error = failed.error;
        locks.awaited.push_back(std::move(wait));
    }
    locks.not_shown = recording::table.overflowed;
    return locks;
}

}  // namespace planloop
