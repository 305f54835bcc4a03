#include "launch/doctor/measure.h"

#include <algorithm>

#include "runtime/cpu/memory_bandwidth.h"
#include "runtime/cpu/peak.h"
#include "runtime/machine/memory_facts.h"
#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

constexpr i64 kArrayBytes = i64{128} << 20;

const char* type_name(PeakType type) {
    return type == PeakType::f32 ? "f32" : type == PeakType::f64 ? "f64" : "bf16";
}

void add_peaks(std::vector<Measurement>& all, int threads, bool all_threads) {
    for (const PeakType type : {PeakType::f32, PeakType::bf16}) {
        bool first = true;
        for (const Peak& peak : measure_peaks(type, threads)) {
            Measurement one;
            one.best = peak.best;
            one.median = peak.median;
            one.note = peak.loop + (peak.assembly ? "" : ", no assembly for this CPU");
            one.all_threads = all_threads;
            one.name = type_name(type);
            // Of bf16 also what vectors reach, because products may use those and not the tiles.
            if (!first && !(type == PeakType::bf16 && peak.loop.starts_with("vdp"))) continue;
            if (!first) one.name += " vectors";
            first = false;
            all.push_back(std::move(one));
        }
    }
}

void add_bandwidth(std::vector<Measurement>& all, int threads, i64 array_bytes, bool all_threads) {
    for (const MemoryRate& rate : measure_memory_bandwidth(threads, array_bytes)) {
        all.push_back({"memory " + rate.operation, rate.best, rate.median,
                       "arrays of " + bytes_text(static_cast<double>(array_bytes)), all_threads, false});
    }
}

}  // namespace

std::vector<Measurement> measure_machine(Communicator& world, int threads, int local_ranks) {
    std::vector<Measurement> all;
    // Three arrays per rank, in a fraction of what is free.
    const i64 available = read_memory_facts("").available.value_or(kArrayBytes * 16);
    const i64 array = std::clamp<i64>(available / (16 * local_ranks), i64{1} << 20, kArrayBytes);
    world.barrier({"doctor: peaks of one core"});
    add_peaks(all, 1, false);
    world.barrier({"doctor: memory, one core"});
    if (world.topology().local_rank == 0) add_bandwidth(all, 1, array, false);
    // One core everywhere was all there is; ranks may differ, so they agree.
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("doctor");
    i64 most = i64{threads} * local_ranks;
    world.all_reduce(*stream, view_of(&most, {1}), ReduceOp::max, {"doctor: threads"});
    if (most == 1) return all;
    world.barrier({"doctor: peaks of all cores"});
    add_peaks(all, threads, true);
    world.barrier({"doctor: memory, all cores"});
    add_bandwidth(all, threads, std::max<i64>(array / local_ranks, i64{1} << 20), true);
    return all;
}

Findings measured_rows(const std::string& host, const std::vector<std::vector<Measurement>>& ranks,
                       double share) {
    Findings rows;
    for (const Measurement& leader : ranks.front()) {
        double best = 0, median = 0, slowest = leader.best;
        for (const auto& rank : ranks) {
            const auto own = std::ranges::find_if(rank, [&](const Measurement& one) {
                return one.name == leader.name && one.all_threads == leader.all_threads;
            });
            if (own == rank.end()) continue;
            best += own->best;
            median += own->median;
            slowest = std::min(slowest, own->best);
        }
        Finding row{.section = "measured", .node = host};
        row.name = leader.name + (leader.all_threads ? ", node" : ", one core");
        best = leader.all_threads ? best * share : leader.best;
        median = leader.all_threads ? median * share : leader.median;
        row.value = best * 1e-9;
        row.unit = leader.arithmetic ? "GFLOP/s" : "GB/s";
        row.found = fmt::format("{:8.1f} {:<7} (median {:.1f})  {}", best * 1e-9, row.unit, median * 1e-9,
                                leader.note);
        if (!leader.all_threads && slowest < 0.7 * best) {
            row.status = FindingStatus::warning;
            row.advice =
                fmt::format("the slowest rank here has {:.1f}: do ranks share a core, or other programs run?",
                            slowest * 1e-9);
        }
        rows.push_back(row);
    }
    return rows;
}

}  // namespace moesaic
