#include "launch/step_trace.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/atomic_file.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

constexpr std::size_t kCollectivesKept = 1 << 16;
constexpr double kLeastWait = 1e-6;  // seconds; a shorter one is not drawn

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

/// The median of how much later this rank leaves a barrier than rank 0, by their own clocks.
double clock_ahead_of_first(Communicator& world, Stream& stream) {
    constexpr i64 kTries = 9;
    std::vector<double> mine(kTries);
    for (double& left : mine) {
        world.barrier({"clocks of ranks"});
        left = StepTimeline::now();
    }
    std::vector<double> first = mine;
    world.broadcast(stream, view_of(first.data(), {kTries}), 0, {"clocks of ranks"});
    stream.synchronize();
    for (std::size_t i = 0; i < mine.size(); ++i) mine[i] -= first[i];
    std::ranges::nth_element(mine, mine.begin() + kTries / 2);
    return mine[kTries / 2];
}

// What travels to rank 0: [rank, host, began, ended, [spans], [collectives]].
nlohmann::json to_json(const RankTrace& trace) {
    auto work = nlohmann::json::array(), collectives = nlohmann::json::array();
    for (const WorkSpan& one : trace.work)
        work.push_back({static_cast<int>(one.phase), one.layer, one.backward, one.began, one.ended});
    for (const RankTrace::Collective& one : trace.collectives)
        collectives.push_back({one.name, one.key, one.rows, one.row_bytes, one.began, one.ended});
    return {trace.rank, trace.host, trace.began, trace.ended, work, collectives};
}

RankTrace from_json(const nlohmann::json& json) {
    RankTrace trace{json[0], json[1], json[2], json[3], {}, {}};
    for (const auto& one : json[4])
        trace.work.push_back({static_cast<WorkPhase>(one[0].get<int>()), one[1], one[2], one[3], one[4]});
    for (const auto& one : json[5])
        trace.collectives.push_back({one[0], one[1], one[2], one[3], one[4], one[5]});
    return trace;
}

/// Collective over `world`. On rank 0 everybody's text by rank, elsewhere nothing.
std::vector<std::string> collect_texts(Communicator& world, Stream& stream, const std::string& mine) {
    std::vector<std::string> texts;
    if (world.rank() == 0) texts.push_back(mine);
    for (int rank = 1; rank < world.size(); ++rank) {
        if (world.rank() != rank && world.rank() != 0) continue;
        i64 size = std::ssize(mine);
        std::vector<i32> characters;  // tensors hold numbers
        if (world.rank() == rank) {
            characters.assign(mine.begin(), mine.end());
            world.send(stream, view_of(&size, {1}), 0, {"size of a trace"});
            world.send(stream, view_of(characters.data(), {size}), 0, {"trace"});
            stream.synchronize();
        } else {
            world.recv(stream, view_of(&size, {1}), rank, {"size of a trace"});
            stream.synchronize();
            characters.resize(static_cast<std::size_t>(size));
            world.recv(stream, view_of(characters.data(), {size}), rank, {"trace"});
            stream.synchronize();
            texts.emplace_back(characters.begin(), characters.end());
        }
    }
    return texts;
}

/// Writes events one after the other; times in microseconds since the trace's first.
class EventList {
  public:
    explicit EventList(double zero) : zero_(zero) {}

    void name_of_track(int rank, int track, std::string_view what, const std::string& name) {
        JsonLine event;
        event.field("name", what).field("ph", "M").field("pid", rank).field("tid", track);
        event.field("args", std::map<std::string, std::string>{{"name", name}});
        add(event);
    }
    void span(int rank, int track, std::string_view category, const std::string& name, double began,
              double ended, const std::map<std::string, i64>& details = {}) {
        JsonLine event;
        event.field("name", name).field("cat", category).field("ph", "X").field("pid", rank);
        event.field("tid", track).field("ts", 1e6 * (began - zero_)).field("dur", 1e6 * (ended - began));
        if (!details.empty()) event.field("args", details);
        add(event);
    }
    [[nodiscard]] std::string text() const {
        return "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" + events_ + "\n]}\n";
    }

  private:
    double zero_;
    std::string events_;

    void add(const JsonLine& event) {
        if (!events_.empty()) events_ += ",\n";
        events_ += event.text();
    }
};

/// Who came last to a collective, and when.
struct LastArrival {
    int rank = 0;
    double began = 0;
};

std::map<std::string, LastArrival> last_arrivals(const std::vector<RankTrace>& ranks) {
    std::map<std::string, LastArrival> last;
    for (const RankTrace& rank : ranks) {
        for (const RankTrace::Collective& one : rank.collectives) {
            if (one.key.empty()) continue;
            const auto [known, fresh] = last.try_emplace(one.key, LastArrival{rank.rank, one.began});
            if (!fresh && one.began > known->second.began) known->second = {rank.rank, one.began};
        }
    }
    return last;
}

std::string span_name(const WorkSpan& span) {
    return fmt::format("{}{}{}", name_of(span.phase), span.backward ? " backward" : "",
                       span.layer >= 0 ? fmt::format(", layer {}", span.layer) : "");
}

}  // namespace

std::string chrome_trace(i64 step, const std::vector<RankTrace>& ranks) {
    enum Track : int { kWork, kBetweenRanks };
    double zero = ranks.empty() ? 0 : ranks.front().began;
    for (const RankTrace& rank : ranks) zero = std::min(zero, rank.began);
    const std::map<std::string, LastArrival> last = last_arrivals(ranks);
    EventList events(zero);
    for (const RankTrace& rank : ranks) {
        events.name_of_track(rank.rank, kWork, "process_name",
                             fmt::format("rank {} on {}", rank.rank, rank.host));
        events.name_of_track(rank.rank, kWork, "thread_name", "work");
        events.name_of_track(rank.rank, kBetweenRanks, "thread_name", "between ranks");
        events.span(rank.rank, kWork, "step", fmt::format("step {}", step), rank.began, rank.ended);
        for (const WorkSpan& one : rank.work)
            events.span(rank.rank, kWork, "compute", span_name(one), one.began, one.ended);
        for (const RankTrace::Collective& one : rank.collectives) {
            events.span(rank.rank, kBetweenRanks, "exchange", one.name, one.began, one.ended,
                        {{"rows", one.rows}, {"row bytes", one.row_bytes}});
            const auto latest = last.find(one.key);
            if (latest == last.end() || latest->second.rank == rank.rank) continue;
            const double until = std::min(latest->second.began, one.ended);
            if (until - one.began > kLeastWait)
                events.span(rank.rank, kBetweenRanks, "wait",
                            fmt::format("wait for rank {}", latest->second.rank), one.began, until);
        }
    }
    return events.text();
}

StepTrace::StepTrace(RankRuntime& runtime, i64 step) : runtime_(runtime), step_(step) {
    Communicator& world = runtime.mesh->world();
    clock_ahead_ = clock_ahead_of_first(world, *runtime.exchange);
    if (world.topology().nodes == 1) clock_ahead_ = 0;  // one machine, one clock
    world.flights().remember(kCollectivesKept);
    runtime.timeline.trace();
    began_ = StepTimeline::now();
}

std::string StepTrace::write(const std::string& folder) {
    Communicator& world = runtime_.mesh->world();
    const double ended = StepTimeline::now();
    RankTrace trace{world.rank(), host_name(), began_ - clock_ahead_, ended - clock_ahead_, {}, {}};
    for (WorkSpan span : runtime_.timeline.take_spans()) {
        span.began -= clock_ahead_;
        span.ended -= clock_ahead_;
        trace.work.push_back(span);
    }
    const FlightLog flights = world.flights().log();
    const double zero = world.flights().start() - clock_ahead_;
    for (const FlightRecord& one : flights.records) {
        if (one.step != step_ || one.under_way()) continue;
        const FlightGroup& group = flights.groups[one.group];
        // Groups of one name have no rank in common.
        const std::string key = one.sequence < 0 ? ""
                                                 : fmt::format("{} of rank {}, {}", group.name,
                                                               group.world_ranks.front(), one.sequence);
        const std::string layer = one.layer >= 0 ? fmt::format(", layer {}", one.layer) : "";
        trace.collectives.push_back(
            {one.operation + layer, key, one.rows, one.row_bytes, zero + one.began, zero + one.ended});
    }
    const std::string path = fmt::format("{}/trace.step{}.json", folder, step_);
    const auto texts = collect_texts(world, *runtime_.exchange, to_json(trace).dump());
    if (world.rank() != 0) return path;
    std::vector<RankTrace> ranks;
    for (const std::string& text : texts) ranks.push_back(from_json(nlohmann::json::parse(text)));
    write_file_atomically(path, chrome_trace(step_, ranks));
    return path;
}

}  // namespace moesaic
