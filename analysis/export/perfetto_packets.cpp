#include "analysis/export/perfetto_packets.h"

#include "lockcore/jsonl.h"

namespace planloop::analysis::perfetto {

std::string utf8(std::string_view text) {
    std::string out;
    append_utf8(out, text);
    return out;
}

std::uint64_t InternedTexts::of(std::string_view text, std::string &introduced) {
    const auto [at, made] = numbers_.try_emplace(std::string(text), numbers_.size() + 1);
    if (made) {
        pbf_writer data(introduced);
        pbf_writer entry(data, field_);
        entry.add_uint64(kIid, at->second);
        entry.add_string(kText, utf8(text));
    }
    return at->second;
}

void PacketWriter::start(std::int64_t utc_ns) {
    packet([&](pbf_writer &packet) {
        pbf_writer snapshot(packet, kClockSnapshot);
        for (const std::uint32_t id : {kRealtime, kBoottime}) {
            pbf_writer clock(snapshot, kClocks);
            clock.add_uint32(kClockId, id);
            clock.add_uint64(kClockTimestamp, static_cast<std::uint64_t>(utc_ns));
        }
    });
}

void PacketWriter::name(pbf_writer &event, std::string_view category, std::string_view name) {
    event.add_string(kCategories, category.data(), category.size());
    event.add_uint64(kNameIid, names_.of(name, introduced_));
}

void PacketWriter::text(pbf_writer &event, std::string_view key, std::string_view value, bool often) {
    if (value.empty()) return;
    pbf_writer annotation(event, kAnnotations);
    annotation.add_uint64(kAnnotationNameIid, keys_.of(key, introduced_));
    if (often)
        annotation.add_uint64(kStringValueIid, values_.of(value, introduced_));
    else
        annotation.add_string(kStringValue, utf8(value));
}

void PacketWriter::number(pbf_writer &event, std::string_view key, std::int64_t value) {
    pbf_writer annotation(event, kAnnotations);
    annotation.add_uint64(kAnnotationNameIid, keys_.of(key, introduced_));
    annotation.add_int64(kIntValue, value);
}

void PacketWriter::flag(pbf_writer &event, std::string_view key, bool value) {
    pbf_writer annotation(event, kAnnotations);
    annotation.add_uint64(kAnnotationNameIid, keys_.of(key, introduced_));
    annotation.add_bool(kBoolValue, value);
}

}  // namespace planloop::analysis::perfetto
