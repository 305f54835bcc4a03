// Finds out of several ranks' flight logs where they parted.
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include "comm/flight_log.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// "rank 3", "ranks 0-2, 5".
std::string list_of(const std::vector<int>& ranks) {
    std::string text;
    for (std::size_t first = 0; first < ranks.size();) {
        std::size_t last = first;
        while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
        text += fmt::format("{}{}", text.empty() ? "" : ", ", ranks[first]);
        if (last > first) text += fmt::format("{}{}", last > first + 1 ? "-" : ", ", ranks[last]);
        first = last + 1;
    }
    return (ranks.size() == 1 ? "rank " : "ranks ") + text;
}

std::string verb_of(const std::vector<int>& ranks, const char* one, const char* many) {
    return fmt::format("{} {}", list_of(ranks), ranks.size() == 1 ? one : many);
}

std::string at_step(const FlightRecord& record) {
    return record.step < 0 ? "" : fmt::format(", step {}", record.step);
}

/// What one rank did in a group.
struct Member {
    int rank = 0;
    const FlightLog* log = nullptr;
    i64 entered = 0;
    std::map<i64, const FlightRecord*> by_sequence;

    [[nodiscard]] const FlightRecord* at(i64 sequence) const {
        const auto found = by_sequence.find(sequence);
        return found == by_sequence.end() ? nullptr : found->second;
    }
};

struct GroupHistory {
    std::string name;
    std::vector<Member> members;  // those whose logs are there
};

std::vector<GroupHistory> histories_of(const std::map<int, FlightLog>& logs) {
    std::map<std::pair<std::string, std::vector<int>>, GroupHistory> groups;
    for (const auto& [rank, log] : logs) {
        for (std::size_t index = 0; index < log.groups.size(); ++index) {
            const FlightGroup& group = log.groups[index];
            GroupHistory& history = groups[{group.name, group.world_ranks}];
            history.name = group.name;
            Member member{.rank = rank, .log = &log, .entered = group.entered, .by_sequence = {}};
            for (const FlightRecord& record : log.records) {
                if (record.group == index && record.sequence >= 0)
                    member.by_sequence[record.sequence] = &record;
            }
            history.members.push_back(std::move(member));
        }
    }
    std::vector<GroupHistory> all;
    for (auto& [key, history] : groups) all.push_back(std::move(history));
    return all;
}

/// The first collective whose entries differ, in a sentence; nothing where all agree.
std::optional<std::string> divergence(const GroupHistory& group) {
    std::set<i64> sequences;
    for (const Member& member : group.members) {
        for (const auto& [sequence, record] : member.by_sequence) sequences.insert(sequence);
    }
    for (const i64 sequence : sequences) {
        std::map<std::pair<std::string, u64>, std::vector<int>> who;
        std::set<u64> pasts;
        const FlightRecord* any = nullptr;
        for (const Member& member : group.members) {
            const FlightRecord* record = member.at(sequence);
            if (record == nullptr) continue;
            any = record;
            who[{record->text(), record->shape}].push_back(member.rank);
            pasts.insert(record->history);
        }
        if (pasts.size() < 2) continue;
        if (who.size() < 2) {
            return fmt::format(
                "the ranks of '{}' parted before collective {} ({}), further back than the logs go",
                group.name, sequence, any->text());
        }
        std::vector<std::string> sides;
        for (const auto& [call, ranks] : who)
            sides.push_back(fmt::format("{} {}", verb_of(ranks, "is in", "are in"), call.first));
        std::set<std::string> words;
        for (const auto& [call, ranks] : who) words.insert(call.first);
        return fmt::format("collective {} of '{}'{}: {}{}", sequence, group.name, at_step(*any),
                           fmt::join(sides, "; "), words.size() < sides.size() ? ", with other counts" : "");
    }
    return std::nullopt;
}

/// Where a rank is, and since when.
struct Whereabouts {
    std::string place;  ///< "in all_gather_rows 'norm' of 'world', step 7"
    bool inside = false;
    double seconds = 0;
};

Whereabouts whereabouts_of(const FlightLog& log) {
    if (log.records.empty()) return {"before the first collective", false, log.written};
    const auto under_way = std::find_if(log.records.rbegin(), log.records.rend(),
                                        [](const FlightRecord& one) { return one.under_way(); });
    const bool inside = under_way != log.records.rend();
    const FlightRecord& record = inside ? *under_way : log.records.back();
    return {fmt::format("{} {} of '{}'{}", inside ? "in" : "outside of collectives after", record.text(),
                        log.groups[record.group].name, at_step(record)),
            inside, log.written - (inside ? record.began : record.ended)};
}

/// Ranks at one place, and the longest time that one of them has been there.
struct Gathering {
    std::vector<int> ranks;
    double seconds = 0;
};

std::map<std::string, Gathering> places_of(const std::vector<std::pair<int, const FlightLog*>>& ranks) {
    std::map<std::string, Gathering> places;
    for (const auto& [rank, log] : ranks) {
        const Whereabouts here = whereabouts_of(*log);
        Gathering& there = places[here.place];
        there.ranks.push_back(rank);
        there.seconds = std::max(there.seconds, here.seconds);
    }
    return places;
}

/// Who waits in the group's last collective, and who has not come.
std::vector<std::string> absences(const GroupHistory& group) {
    i64 entered = 0;
    for (const Member& member : group.members) entered = std::max(entered, member.entered);
    const FlightRecord* pending = nullptr;
    Gathering waiting;
    std::vector<std::pair<int, const FlightLog*>> missing;
    for (const Member& member : group.members) {
        if (member.entered < entered) missing.emplace_back(member.rank, member.log);
        const FlightRecord* record = member.entered == entered ? member.at(entered - 1) : nullptr;
        if (record == nullptr || !record->under_way()) continue;
        pending = record;
        waiting.ranks.push_back(member.rank);
        waiting.seconds = std::max(waiting.seconds, member.log->written - record->began);
    }
    if (pending == nullptr) return {};
    std::vector<std::string> findings;
    for (const auto& [place, gathering] : places_of(missing)) {
        findings.push_back(fmt::format(
            "{} not come to {} (collective {} of '{}'{}), where {} for {:.1f} s; {} {} for {:.1f} s",
            verb_of(gathering.ranks, "has", "have"), pending->text(), entered - 1, group.name,
            at_step(*pending), verb_of(waiting.ranks, "has waited", "have waited"), waiting.seconds,
            gathering.ranks.size() == 1 ? "it has been" : "they have been", place, gathering.seconds));
    }
    return findings;
}

}  // namespace

std::string diagnose_hang(const std::map<int, FlightLog>& logs, int world_size) {
    std::vector<int> silent;
    for (int rank = 0; rank < world_size; ++rank) {
        if (!logs.contains(rank)) silent.push_back(rank);
    }
    std::vector<std::string> findings;
    const std::vector<GroupHistory> groups = histories_of(logs);
    for (const GroupHistory& group : groups) {
        if (const auto found = divergence(group)) findings.push_back(*found);
    }
    if (!silent.empty())
        findings.push_back(verb_of(silent, "left no record: its process is gone, stopped, or cannot write",
                                   "left no records: their processes are gone, stopped, or cannot write"));
    if (findings.empty()) {
        for (const GroupHistory& group : groups)
            std::ranges::move(absences(group), std::back_inserter(findings));
    }
    if (findings.empty() || !silent.empty()) {  // nothing better to say: where everybody is
        std::vector<std::pair<int, const FlightLog*>> ranks;
        for (const auto& [rank, log] : logs) ranks.emplace_back(rank, &log);
        for (const auto& [place, gathering] : places_of(ranks))
            findings.push_back(fmt::format("{} been {} for {:.1f} s", verb_of(gathering.ranks, "has", "have"),
                                           place, gathering.seconds));
    }
    return fmt::format("{}", fmt::join(findings, "\n"));
}

}  // namespace moesaic
