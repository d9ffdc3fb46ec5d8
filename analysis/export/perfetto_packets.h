// Perfetto's native trace, packet by packet: TrackEvent protobuf. Field numbers are those of protos/perfetto/trace in
// github.com/google/perfetto: trace.proto, trace_packet.proto, clock_snapshot.proto, interned_data/interned_data.proto
// and track_event/{track_event,track_descriptor,process_descriptor,thread_descriptor,counter_descriptor,
// debug_annotation}.proto.
//
// Times are UTC nanoseconds; packets need not be in their order. Text of any bytes becomes UTF-8. Threads: one user per
// object.
#ifndef PLANLOOP_ANALYSIS_EXPORT_PERFETTO_PACKETS_H
#define PLANLOOP_ANALYSIS_EXPORT_PERFETTO_PACKETS_H

#include <cstdint>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <string_view>
#include <unordered_map>

#include "analysis/export/format.h"

namespace planloop::analysis::perfetto {

using protozero::pbf_writer;

enum : std::uint32_t { kTracePacket = 1 };
enum Packet : std::uint32_t {
    kClockSnapshot = 6,
    kTimestamp = 8,
    kSequenceId = 10,
    kTrackEvent = 11,
    kInternedData = 12,
    kSequenceFlags = 13,
    kTrackDescriptor = 60,
};
enum : std::uint32_t { kStateCleared = 1, kNeedsState = 2 };  // SequenceFlags
enum Snapshot : std::uint32_t { kClocks = 1 };
enum Clock : std::uint32_t { kClockId = 1, kClockTimestamp = 2 };
enum : std::uint32_t { kRealtime = 1, kBoottime = 6 };  // BuiltinClock
enum Interned : std::uint32_t { kEventNames = 2, kAnnotationNames = 3, kStringValues = 29 };
enum InternedEntry : std::uint32_t { kIid = 1, kText = 2 };
enum EventField : std::uint32_t {
    kAnnotations = 4,
    kType = 9,
    kNameIid = 10,
    kTrackUuid = 11,
    kCategories = 22,
    kCounterValue = 30,
    kFlowIds = 47,
    kTerminatingFlowIds = 48,
};
enum : std::int32_t { kSliceBegin = 1, kSliceEnd = 2, kInstant = 3, kCounterType = 4 };  // TrackEvent.Type
enum Annotation : std::uint32_t {
    kAnnotationNameIid = 1,
    kBoolValue = 2,
    kIntValue = 4,
    kStringValue = 6,
    kStringValueIid = 17,
};
enum Descriptor : std::uint32_t {
    kUuid = 1,
    kTrackName = 2,
    kProcess = 3,
    kThread = 4,
    kParentUuid = 5,
    kCounter = 8,
};
enum ProcessField : std::uint32_t { kProcessPid = 1, kCommandLine = 2, kProcessName = 6 };
enum ThreadField : std::uint32_t { kThreadPid = 1, kThreadTid = 2, kThreadName = 5 };
enum CounterField : std::uint32_t { kCounterUnitName = 6 };

std::string utf8(std::string_view text);

// Texts that come again and again get a number, which is introduced in the packet that uses it first.
class InternedTexts {
  public:
    explicit InternedTexts(Interned field) : field_(field) {}

    std::uint64_t of(std::string_view text, std::string &introduced);

  private:
    Interned field_;
    std::unordered_map<std::string, std::uint64_t> numbers_;
};

// One packet after the other, on one sequence.
class PacketWriter {
  public:
    explicit PacketWriter(const Write &write) : write_(write) {}

    // First of all: the clock of all times.
    void start(std::int64_t utc_ns);

    // A track below `parent` (0: none); `fill(track)` adds what it stands for.
    template <class Fill>
    void describe(std::uint64_t uuid, std::uint64_t parent, std::string_view name, const Fill &fill) {
        packet([&](pbf_writer &packet) {
            pbf_writer track(packet, kTrackDescriptor);
            track.add_uint64(kUuid, uuid);
            if (!name.empty()) track.add_string(kTrackName, utf8(name));
            if (parent != 0) track.add_uint64(kParentUuid, parent);
            fill(track);
        });
    }

    // `fill(event)` adds what belongs to the event beside type and track.
    template <class Fill>
    void event(std::int64_t utc_ns, std::uint64_t track, std::int32_t type, const Fill &fill) {
        event_.clear();
        introduced_.clear();
        {
            pbf_writer event(event_);
            event.add_enum(kType, type);
            event.add_uint64(kTrackUuid, track);
            fill(event);
        }
        packet([&](pbf_writer &packet) {
            packet.add_uint64(kTimestamp, static_cast<std::uint64_t>(utc_ns));
            if (!introduced_.empty()) packet.add_message(kInternedData, introduced_);
            packet.add_message(kTrackEvent, event_);
        });
    }

    // For use inside `fill`. `often`: the value will come again.
    void name(pbf_writer &event, std::string_view category, std::string_view name);
    void text(pbf_writer &event, std::string_view key, std::string_view value, bool often = false);
    void number(pbf_writer &event, std::string_view key, std::int64_t value);
    void flag(pbf_writer &event, std::string_view key, bool value);

  private:
    template <class Fill>
    void packet(const Fill &fill) {
        out_.clear();
        {
            pbf_writer trace(out_);
            pbf_writer packet(trace, kTracePacket);
            packet.add_uint32(kSequenceId, 1);
            packet.add_uint32(kSequenceFlags, first_ ? kStateCleared : kNeedsState);
            fill(packet);
        }
        first_ = false;
        write_(out_);
    }

    const Write &write_;
    std::string out_, event_, introduced_;
    InternedTexts names_{kEventNames}, keys_{kAnnotationNames}, values_{kStringValues};
    bool first_ = true;
};

}  // namespace planloop::analysis::perfetto

#endif
