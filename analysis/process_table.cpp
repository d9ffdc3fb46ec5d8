#include "analysis/process_table.h"

#include <algorithm>

namespace planloop::analysis {
namespace {

auto descriptor_place(std::vector<Descriptor> &descriptors, std::int64_t fd) {
    return std::lower_bound(descriptors.begin(), descriptors.end(), fd,
                            [](const Descriptor &descriptor, std::int64_t wanted) { return descriptor.fd < wanted; });
}

}  // namespace

void Thread::clear() {
    std::vector<Index> keep = std::move(owned);
    keep.clear();
    *this = Thread{};
    owned = std::move(keep);
}

void Process::clear() {
    *this = Process{};
}

void Description::clear() {
    file = kNone;
    sharers.clear();
    owned.clear();
    numbers.clear();
}

Index ProcessTable::add_process(std::int32_t pid) {
    const Index index = processes_.make();
    processes_[index].pid = pid;
    by_pid_.put(static_cast<std::uint32_t>(pid), index);
    return index;
}

void ProcessTable::set_parent(Index index, std::int32_t pid) {
    Process &process = processes_[index];
    if (process.parent_pid == pid) return;
    if (process.parent_pid != 0) {
        if (process.previous_sibling != kNone)
            processes_[process.previous_sibling].next_sibling = process.next_sibling;
        else if (process.next_sibling != kNone)
            by_parent_.put(static_cast<std::uint32_t>(process.parent_pid), process.next_sibling);
        else
            by_parent_.erase(static_cast<std::uint32_t>(process.parent_pid));
        if (process.next_sibling != kNone) processes_[process.next_sibling].previous_sibling = process.previous_sibling;
    }
    process.parent_pid = pid;
    process.next_sibling = process.previous_sibling = kNone;
    if (pid == 0) return;
    Index &first = by_parent_.at(static_cast<std::uint32_t>(pid), kNone);
    process.next_sibling = first;
    if (first != kNone) processes_[first].previous_sibling = index;
    first = index;
}

void ProcessTable::begin_child_wait(Index index, std::int64_t child) {
    end_child_wait(index);
    threads_[index].waits_for_child = true;
    threads_[index].child = child;
    if (child > 0) awaited_by_.put(static_cast<std::uint64_t>(child), index);
}

void ProcessTable::end_child_wait(Index index) {
    Thread &thread = threads_[index];
    const auto child = static_cast<std::uint64_t>(thread.child);
    if (thread.waits_for_child && thread.child > 0 && awaited_by_.find(child) == index) awaited_by_.erase(child);
    thread.waits_for_child = false;
}

Index ProcessTable::recorded_parent(Index index) const {
    std::int32_t pid = processes_[index].parent_pid;
    for (int level = 0; level <= kUnrecorded && pid > 0; ++level) {
        const Index parent = find_pid(pid);
        if (parent == index) return kNone;
        if (parent != kNone && !processes_[parent].threads.empty()) return parent;
        if (const Index waiter = awaited_by_.find(static_cast<std::uint32_t>(pid)); waiter != kNone)
            return threads_[waiter].process;
        pid = parent == kNone ? 0 : processes_[parent].parent_pid;
    }
    return kNone;
}

Index ProcessTable::find_process(const Event &event) {
    const ProcessInfo &info = source_.process(event.process);
    const std::int32_t pid = info.pid != 0 ? info.pid : event.pid;
    Index index = find_pid(pid);
    // An image whose end was seen may still speak (destructors run after the exit hook): it is no new process.
    if (index == kNone) index = add_process(pid);
    Process &process = processes_[index];
    if (process.image == 0 && event.process != 0) {
        if (info.pid == 0 || info.hearsay) count(index);  // no start record may ever count it
        if (!info.hearsay)
            attach(index, event.process, info);
        else if (process.name_image == 0)
            process.name_image = event.process;
    }
    return index;
}

void ProcessTable::count(Index process) {
    if (!processes_[process].counted) ++processes_seen_;
    processes_[process].counted = true;
}

void ProcessTable::attach(Index index, std::uint32_t image, const ProcessInfo &info) {
    Process &process = processes_[index];
    if (process.image != 0) by_image_.erase(process.image);
    process.image = process.name_image = image;
    if (info.parent_pid != 0) set_parent(index, info.parent_pid);
    if (info.start_time != 0) process.start_time = info.start_time;
    by_image_.put(image, index);
}

Index ProcessTable::find_thread(const Event &event, Index process, std::uint64_t key) {
    const bool hearsay = source_.process(event.process).hearsay;
    hearsay_ = hearsay_ || hearsay;
    if (const Index same = thread_with_other_voice(process, event.tid, hearsay); same != kNone) {
        threads_[same].other_stream = event.thread;
        by_stream_.put(key, same);
        return same;
    }
    const Index index = threads_.make();
    Thread &thread = threads_[index];
    thread.hearsay = hearsay;
    thread.stream = event.thread;
    thread.tid = event.tid;
    thread.process = process;
    thread.key = key;
    by_stream_.put(key, index);
    Process &owner = processes_[process];
    owner.threads.push_back(index);
    if (event.tid != owner.pid || !owner.main_seen) ++threads_seen_;
    if (event.tid == owner.pid) owner.main_seen = true;
    return index;
}

Index ProcessTable::thread_with_other_voice(Index process, std::int32_t tid, bool hearsay) const {
    if (!hearsay_ || tid == 0) return kNone;
    for (const Index index : processes_[process].threads) {
        const Thread &thread = threads_[index];
        if (thread.tid == tid && thread.hearsay != hearsay && thread.other_stream == 0) return index;
    }
    return kNone;
}

std::uint32_t ProcessTable::stream_of(const Event &event) const {
    if (!hearsay_ || event.thread == 0) return event.thread;
    const Index thread = find_stream(event.thread);
    return thread == kNone ? event.thread : threads_[thread].stream;
}

void ProcessTable::release_threads(Index process) {
    for (const Index thread : processes_[process].threads) {
        end_child_wait(thread);
        for (const std::uint64_t key : {threads_[thread].key, std::uint64_t{threads_[thread].other_stream}})
            if (key != 0 && by_stream_.find(key) == thread) by_stream_.erase(key);
        threads_.release(thread);
    }
    processes_[process].threads.clear();
}

void ProcessTable::release_process(Index index) {
    Process &process = processes_[index];
    if (process.image != 0) by_image_.erase(process.image);
    if (find_pid(process.pid) == index) by_pid_.erase(static_cast<std::uint32_t>(process.pid));
    set_parent(index, 0);
    processes_.release(index);
}

const Descriptor *ProcessTable::find_descriptor(Index process, std::int64_t fd) const {
    const std::vector<Descriptor> &all = processes_[process].descriptors;
    const auto at = std::lower_bound(all.begin(), all.end(), fd, [](const Descriptor &descriptor, std::int64_t wanted) {
        return descriptor.fd < wanted;
    });
    return at == all.end() || at->fd != fd ? nullptr : &*at;
}

Index ProcessTable::description_at(Index process, std::int64_t fd) const {
    const Descriptor *found = find_descriptor(process, fd);
    return found == nullptr ? kNone : found->description;
}

bool ProcessTable::is_inherited(Index process, std::int64_t fd) const {
    const Descriptor *found = find_descriptor(process, fd);
    return found != nullptr && found->inherited;
}

Index ProcessTable::make_description(Index file, std::uint32_t number) {
    const Index index = descriptions_.make();
    descriptions_[index].file = file;
    return number != 0 ? adopt_number(index, number) : index;
}

// A shell may run thousands of programs over one descriptor, and each may have a number of its own for it, so only the
// latest are kept; the first one stays, since it is what children and new images carry on.
Index ProcessTable::adopt_number(Index into, std::uint32_t number) {
    constexpr std::size_t kNumbers = 64;
    std::vector<std::uint32_t> &numbers = descriptions_[into].numbers;
    if (numbers.size() == kNumbers) {
        if (by_number_.find(numbers[1]) == into) by_number_.erase(numbers[1]);
        numbers.erase(numbers.begin() + 1);
    }
    by_number_.put(number, into);
    numbers.push_back(number);
    return into;
}

bool ProcessTable::shares(Index process, Index description) const {
    for (const Description::Sharer &sharer : descriptions_[description].sharers)
        if (sharer.process == process) return true;
    return false;
}

void ProcessTable::add_sharer(Index description, Index process) {
    for (Description::Sharer &sharer : descriptions_[description].sharers) {
        if (sharer.process != process) continue;
        ++sharer.descriptors;
        return;
    }
    descriptions_[description].sharers.push_back({process, 1});
}

Index ProcessTable::drop_sharer(Index description, Index process) {
    std::vector<Description::Sharer> &sharers = descriptions_[description].sharers;
    for (auto at = sharers.begin(); at != sharers.end(); ++at) {
        if (at->process != process) continue;
        if (--at->descriptors == 0) {
            sharers.erase(at);
        }
        break;
    }
    return sharers.empty() ? description : kNone;
}

Index ProcessTable::set_descriptor(Index process, std::int64_t fd, Index description, bool inherited) {
    std::vector<Descriptor> &all = processes_[process].descriptors;
    const auto at = descriptor_place(all, fd);
    if (at == all.end() || at->fd != fd) {
        all.insert(at, {fd, description, inherited});
        add_sharer(description, process);
        return kNone;
    }
    const Index before = at->description;
    *at = {fd, description, inherited};
    if (before == description) return kNone;
    add_sharer(description, process);
    return drop_sharer(before, process);
}

Index ProcessTable::drop_descriptor(Index process, std::int64_t fd) {
    std::vector<Descriptor> &all = processes_[process].descriptors;
    const auto at = descriptor_place(all, fd);
    if (at == all.end() || at->fd != fd) return kNone;
    const Index description = at->description;
    all.erase(at);
    return drop_sharer(description, process);
}

void ProcessTable::copy_descriptors(Index from, Index to) {
    for (const Descriptor &descriptor : processes_[from].descriptors)
        if (find_descriptor(to, descriptor.fd) == nullptr)
            set_descriptor(to, descriptor.fd, descriptor.description, true);
}

void ProcessTable::release_description(Index description) {
    for (const std::uint32_t number : descriptions_[description].numbers)
        if (by_number_.find(number) == description) by_number_.erase(number);
    descriptions_.release(description);
}

Index ProcessTable::learn_description(Index process, const Event &event, Index file, Index &lost) {
    const std::int64_t fd = named_descriptor(event, file);
    const Index named = event.description != 0 ? by_number_.find(event.description) : kNone;
    const Descriptor *entry = find_descriptor(process, fd);
    if (entry != nullptr && descriptions_[entry->description].file == file && entry->inherited && named == kNone) {
        const Index description = entry->description;
        set_descriptor(process, fd, description, false);
        return adopt_number(description, event.description);
    }
    Index description = named;
    if (description != kNone && descriptions_[description].file != file) description = kNone;
    if (description == kNone) description = make_description(file, event.description);
    lost = set_descriptor(process, fd, description, false);
    return description;
}

}  // namespace planloop::analysis
