// Which program or library a lock call was made from. A record has the call's return address; that means something only
// with the address space's map, so the first call from each module of a process image writes a `module` record.
//
// Wait-free and async-signal-safe; no allocation, no errno. A call from a module that was told before costs a few loads
// and no system call; the first one asks _dl_find_object (glibc 2.35, itself lock-free and async-signal-safe) and reads
// the module's build-id where the loader mapped it. Without that function, or for code that lies in no module (a
// JIT's), nothing is written.
//
// Threads: any. Two that see a module first at the same time both tell it, which does no harm.
#ifndef PLANLOOP_LOCKCORE_WIRE_MODULE_NOTE_H
#define PLANLOOP_LOCKCORE_WIRE_MODULE_NOTE_H

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#include "lockcore/wire/stream_writer.h"

namespace planloop::wire {

// The modules that this process image has told. Zero is empty, so that it may lie in memory that fork wipes.
class ToldModules {
  public:
    bool covers(const void *address) const noexcept {
        const std::uint64_t page = reinterpret_cast<std::uintptr_t>(address) / kPage;
        for (const std::atomic<std::uint64_t> &place : places_) {
            const std::uint64_t range = place.load(std::memory_order_acquire);
            if (page - (range >> kPagesBits) < (range & kMostPages)) return true;
        }
        return false;
    }
    void add(std::uint64_t begin, std::uint64_t end) noexcept {
        const std::uint64_t first = begin / kPage;
        std::uint64_t pages = (end + kPage - 1) / kPage - first;
        if (pages > kMostPages) pages = kMostPages;
        if (first >> (64 - kPagesBits) != 0) return;  // past what user space is
        const std::uint32_t place = next_.fetch_add(1, std::memory_order_relaxed) % kPlaces;
        places_[place].store(first << kPagesBits | pages, std::memory_order_release);
    }
    // After a module was unloaded: another may be mapped in its place.
    void clear() noexcept {
        for (std::atomic<std::uint64_t> &place : places_) place.store(0, std::memory_order_release);
    }

  private:
    // First page and number of pages in one word, so that both are read at once.
    static constexpr unsigned kPagesBits = 28;
    static constexpr std::uint64_t kMostPages = (std::uint64_t{1} << kPagesBits) - 1;
    static constexpr std::uint64_t kPage = 4096;
    static constexpr std::uint32_t kPlaces = 8;

    std::atomic<std::uint64_t> places_[kPlaces];
    std::atomic<std::uint32_t> next_;
};

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
#pragma weak _dl_find_object  // so that the program starts where it is missing
#endif

namespace module_detail {

// The build-id among the notes of a loaded module. Its headers lie at its begin, unless its linker was told otherwise.
inline void read_build_id(ModuleBody &body) noexcept {
    const auto *header = reinterpret_cast<const ElfW(Ehdr) *>(body.begin);
    if (body.end - body.begin < sizeof(*header) || !readable(header, sizeof(*header)) ||
        std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_phentsize != sizeof(ElfW(Phdr))) {
        return;
    }
    const auto inside = [&](std::uint64_t from, std::uint64_t bytes) {
        return from >= body.begin && from < body.end && bytes <= body.end - from && bytes >= 8 && bytes <= kPageBytes &&
               readable(reinterpret_cast<const void *>(from), bytes);
    };
    const std::uint64_t segments = body.begin + header->e_phoff;
    if (!inside(segments, std::uint64_t{header->e_phnum} * sizeof(ElfW(Phdr)))) return;
    const auto *segment = reinterpret_cast<const ElfW(Phdr) *>(segments);
    for (unsigned i = 0; i < header->e_phnum; ++i) {
        std::uint64_t at = body.bias + segment[i].p_vaddr;
        if (segment[i].p_type != PT_NOTE || !inside(at, segment[i].p_memsz)) continue;
        const std::uint64_t stop = at + segment[i].p_memsz;
        while (stop - at >= sizeof(ElfW(Nhdr))) {
            const auto *note = reinterpret_cast<const ElfW(Nhdr) *>(at);
            const std::uint64_t name = (std::uint64_t{note->n_namesz} + 3) & ~std::uint64_t{3};
            const std::uint64_t bytes = (std::uint64_t{note->n_descsz} + 3) & ~std::uint64_t{3};
            at += sizeof(*note);
            if (name + bytes > stop - at) break;
            if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == sizeof(ELF_NOTE_GNU) &&
                std::memcmp(reinterpret_cast<const void *>(at), ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0) {
                body.build_id_bytes = note->n_descsz < sizeof(body.build_id) ? note->n_descsz : sizeof(body.build_id);
                std::memcpy(body.build_id, reinterpret_cast<const void *>(at + name), body.build_id_bytes);
                return;
            }
            at += name + bytes;
        }
    }
}

}  // namespace module_detail

// Tells the module that `caller` lies in, which `told` does not cover.
__attribute__((noinline)) inline void tell_module(StreamWriter &stream, SpoolWriter &spool, const WriterIdentity &who,
                                                  ToldModules &told, const void *caller) noexcept {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
    // Stamped first: whoever finds the module told stamps his own record later.
    const std::uint64_t now = spool.ticks();
    dl_find_object found;
    if (&_dl_find_object == nullptr || caller == nullptr || _dl_find_object(const_cast<void *>(caller), &found) != 0) {
        return;
    }
    ModuleBody body{};
    body.begin = reinterpret_cast<std::uint64_t>(found.dlfo_map_start);
    body.end = reinterpret_cast<std::uint64_t>(found.dlfo_map_end);
    body.bias = found.dlfo_link_map->l_addr;
    module_detail::read_build_id(body);
    const char *path = found.dlfo_link_map->l_name != nullptr ? found.dlfo_link_map->l_name : "";
    const TextPiece pieces[] = {{&body, sizeof(body)}, {path, std::strlen(path) + 1}};
    if (Record *record = stream.claim_with_text(spool, who, pieces, 2)) {
        record->kind = RecordKind::module;
        record->begin = now;
        stream.publish(record, State::complete);
    }
    // Also when there was no room for it, so that its loss is counted once.
    told.add(body.begin, body.end);
#else
    static_cast<void>(stream), static_cast<void>(spool), static_cast<void>(who), static_cast<void>(told);
    static_cast<void>(caller);
#endif
}

}  // namespace planloop::wire

#endif
