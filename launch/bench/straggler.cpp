#include "launch/bench/straggler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

double median_of(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const std::size_t half = values.size() / 2;
    if (values.empty()) return 0;
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/// Scores and oddness of rows whose times are there.
void judge_rows(std::vector<StragglerRow>& rows) {
    constexpr double kDeviations = 3.5, kShare = 1.05;
    std::vector<double> own;
    for (const StragglerRow& row : rows) own.push_back(row.own_us);
    const std::vector<double> scores = robust_scores(own);
    const double median = median_of(own);
    // Of two values neither is an outlier by any score: the faster one is the measure.
    const double measure = rows.size() == 2 ? *std::min_element(own.begin(), own.end()) : median;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i].score = scores[i];
        rows[i].relative = measure > 0 ? own[i] / measure : 1;
        rows[i].odd = own[i] > kShare * measure && (rows.size() == 2 || scores[i] > kDeviations);
    }
}

void print_rows(const char* title, const std::vector<StragglerRow>& rows) {
    std::printf("#  %-12s %12s %12s %8s %9s %8s\n", title, "own (us)", "wait (us)", "wait %", "relative",
                "z-score");
    for (const StragglerRow& row : rows) {
        std::printf("#  %-12s %12.1f %12.1f %8.1f %9.2f %8.1f%s\n", row.name.c_str(), row.own_us, row.wait_us,
                    100 * row.wait_share(), row.relative, row.score, row.odd ? "  <- slow" : "");
    }
}

}  // namespace

std::vector<double> robust_scores(const std::vector<double>& values) {
    const double median = median_of(values);
    std::vector<double> deviation;
    for (const double value : values) deviation.push_back(std::abs(value - median));
    const double spread = 1.4826 * std::max(median_of(deviation), 0.01 * std::abs(median));
    std::vector<double> scores;
    for (const double value : values) scores.push_back(spread > 0 ? (value - median) / spread : 0);
    return scores;
}

StragglerReport find_stragglers(const RankTimes& own, const BenchWorld& world) {
    StragglerReport report;
    std::map<int, std::vector<const StragglerRow*>> by_node;
    const std::vector<double> slowest = own.slowest();
    for (int rank = 0; rank < own.ranks; ++rank) {
        StragglerRow row;
        row.name = fmt::format("rank {}", rank);
        row.own_us = own.mean_of(rank);
        for (i64 i = 0; i < own.iterations(); ++i)
            row.wait_us += (slowest[static_cast<std::size_t>(i)] - own.at(rank, i)) /
                           static_cast<double>(own.iterations());
        report.ranks.push_back(row);
    }
    judge_rows(report.ranks);
    for (std::size_t rank = 0; rank < report.ranks.size(); ++rank)
        by_node[world.ranks[rank].node].push_back(&report.ranks[rank]);
    for (const auto& [node, ranks] : by_node) {
        StragglerRow row;
        for (const StragglerRow* rank : ranks) {
            row.own_us += rank->own_us / static_cast<double>(ranks.size());
            row.wait_us += rank->wait_us / static_cast<double>(ranks.size());
        }
        row.name = fmt::format("node {}", node);
        for (const BenchRank& rank : world.ranks) {
            if (rank.node == node) row.name = fmt::format("node {} {}", node, rank.host);
        }
        report.hosts.push_back(row);
    }
    judge_rows(report.hosts);
    return report;
}

std::string StragglerReport::verdict() const {
    std::string names;
    for (const auto* rows : {&hosts, &ranks}) {
        for (const StragglerRow& row : *rows) {
            if (row.odd)
                names += fmt::format("{}{} ({:.2f} times the others' own time, z-score {:.1f})",
                                     names.empty() ? "" : ", ", row.name, row.relative, row.score);
        }
    }
    return names.empty() ? "no rank stands out" : "slow: " + names;
}

void print_stragglers(const StragglerReport& report) {
    std::printf("# Stragglers: each rank's own work, then its wait until the slowest is there\n");
    print_rows("rank", report.ranks);
    if (report.hosts.size() > 1) print_rows("host", report.hosts);
    std::printf("# %-20s : %s\n#\n", "Stragglers", report.verdict().c_str());
}

void print_straggler_json(const StragglerReport& report) {
    JsonLine json;
    json.field("bench", "stragglers").field("ranks", report.ranks).field("hosts", report.hosts);
    json.field("verdict", report.verdict());
    std::printf("%s\n", json.text().c_str());
}

}  // namespace moesaic
