#include "analysis/lock_table.h"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <iterator>

namespace planloop::analysis {

Index LockTable::learn_file(std::uint32_t id) {
    const Index made = make_file(source_.file(id), id);
    by_number_.put(id, made);
    return made;
}

Index LockTable::make_file(const FileInfo &info, std::uint32_t id) {
    const auto next = static_cast<Index>(files_.size());
    Index index{};
    File file;
    std::fill(std::begin(file.locks), std::end(file.locks), kNone);
    if (!info.lock_id.empty()) {
        index = by_name_.try_emplace(info.lock_id, next).first->second;
    } else {
        const auto [at, made] = by_identity_.try_emplace({info.device, info.inode, info.generation}, next);
        index = at->second;
        if (made) file.occurrence = ++occurrences_[{info.device, info.inode}];
    }
    if (index == next) {
        file.id = info.lock_id;
        file.device = info.device;
        file.inode = info.inode;
        file.known = id != 0 && (!info.lock_id.empty() || info.inode != 0);
        files_.push_back(std::move(file));
    }
    if (files_[index].path.empty()) files_[index].path = info.path;
    return index;
}

Index LockTable::make_domain() {
    domains_.emplace_back();
    return static_cast<Index>(domains_.size() - 1);
}

Index LockTable::make_lock(wire::Family family, Index file) {
    Index &slot = files_[file].locks[static_cast<std::size_t>(family)];
    File &about = files_[file];
    const wire::FamilyTraits &traits = wire::kFamilies[static_cast<std::size_t>(family)];
    slot = static_cast<Index>(locks_.size());
    Lock &lock = locks_.emplace_back();
    lock.file = file;
    lock.family = family;
    if (!about.id.empty()) {
        lock.id = about.id;
    } else {
        lock.id =
            fmt::format("{}:{:02x}:{:02x}:{}", traits.name, major(about.device), minor(about.device), about.inode);
        if (about.occurrence > 1) lock.id += fmt::format("#{}", about.occurrence);
    }
    if (traits.ranged) {
        if (about.range_domain == kNone) about.range_domain = make_domain();
        lock.domain = about.range_domain;
    } else {
        lock.domain = make_domain();
    }
    return slot;
}

}  // namespace planloop::analysis
