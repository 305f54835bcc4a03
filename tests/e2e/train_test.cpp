// A run on every kind of ranks: the same losses, the records and files of the contract.
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <set>
#include <thread>

#include "runtime/checkpoint/manifest.h"
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// In the order of metrics.csv.
const Words& step_fields() {
    static const Words kFields{"step",
                               "tokens",
                               "loss",
                               "loss_aux",
                               "loss_z",
                               "grad_norm",
                               "lr",
                               "tokens_per_s",
                               "step_ms",
                               "exchange_ms",
                               "exchange_bytes",
                               "flops_utilization",
                               "load_max_over_mean",
                               "dropped_fraction",
                               "memory_bytes",
                               "loss_importance",
                               "loss_load",
                               "rank_load_max_over_mean",
                               "slowest_rank",
                               "slowest_phase",
                               "slowest_excess_ms",
                               "bounds"};
    return kFields;
}

const std::map<std::string, Words>& always_there() {
    static const std::map<std::string, Words> kFields{
        {"run",
         {"version", "commit", "config", "world_size", "expert_parallel", "expert_tensor", "data_parallel",
          "device", "host", "parameters", "active_parameters", "training_samples", "unit", "unit_reason",
          "balance", "capacity"}},
        {"step", step_fields()},
        {"experts",
         {"step", "layer", "load", "entropy", "dead", "weight_mean", "evenness", "max_over_mean", "variation",
          "idle_steps", "router_entropy", "first_weight_mean", "dropped_fraction", "bias_span", "alarms"}},
        {"eval",
         {"step",
          "heldout_loss",
          "train_probe_loss",
          "gap",
          "gap_low",
          "gap_high",
          "heldout_error",
          "train_probe_error",
          "heldout_by_source",
          "bounds",
          "routing_changed",
          "shifted_loss",
          "shifted_error",
          "heldout_target_error",
          "shifted_target_error",
          "unit",
          "look",
          "train_unseen_loss",
          "train_unseen_error",
          "train_probe_age",
          "losses",
          "gaps",
          "heldout_change",
          "gap_change",
          "gap_rise",
          "unseen_difference",
          "measured",
          "domain_experts",
          "prequential_off",
          "heldout_off",
          "seen_off",
          "meaning",
          "evaluation_share",
          "generalization_share"}},
        {"checkpoint", {"step", "path", "bytes", "seconds", "stall_seconds"}},
        {"end", {"step", "status", "seconds"}},
    };
    return kFields;
}

std::vector<i64> steps_of(const std::vector<Json>& records, const std::string& event) {
    std::vector<i64> steps;
    for (const Json& record : events(records, event)) steps.push_back(record.at("step"));
    return steps;
}

void expect_records_of_the_contract(const std::vector<Json>& records, int world) {
    for (const Json& record : records) {
        const std::string event = record.at("event");
        ASSERT_TRUE(always_there().contains(event)) << event;
        std::set<std::string> expected{"event"}, found;
        for (const std::string& field : always_there().at(event)) expected.insert(field);
        for (const auto& [field, value] : record.items()) found.insert(field);
        EXPECT_EQ(found, expected) << event;
    }
    const Json run = records.front();
    EXPECT_EQ(run.at("event"), "run");
    EXPECT_EQ(run.at("world_size"), world);
    EXPECT_EQ(run.at("expert_parallel").get<int>() * run.at("data_parallel").get<int>(), world);
    EXPECT_EQ(run.at("device"), "cpu");
    EXPECT_GT(run.at("parameters"), run.at("active_parameters"));
    EXPECT_EQ(steps_of(records, "step"), (std::vector<i64>{1, 5, 10, 15, 20}));
    EXPECT_EQ(steps_of(records, "eval"), (std::vector<i64>{0, 10, 20}));
    EXPECT_EQ(steps_of(records, "checkpoint"), (std::vector<i64>{0, 10, 20}));
    EXPECT_EQ(steps_of(records, "experts"), (std::vector<i64>{1, 1, 5, 5, 10, 10, 15, 15, 20, 20}));
    for (const Json& record : events(records, "experts")) {
        i64 sum = 0;
        for (const Json& load : record.at("load")) sum += load.get<i64>();
        EXPECT_EQ(sum, 8 * 64 * 2) << "batch x seq_len x top_k tokens reach experts: " << record;
    }
    for (const Json& record : events(records, "step")) {
        EXPECT_EQ(record.at("tokens"), record.at("step").get<i64>() * 8 * 64);
        EXPECT_EQ(record.at("exchange_bytes") == 0, world == 1) << record;
        EXPECT_GT(record.at("step_ms"), 0);
        EXPECT_GT(record.at("memory_bytes"), 0);
        EXPECT_GE(record.at("load_max_over_mean"), 1);
    }
    EXPECT_EQ(records.back().at("event"), "end");
    EXPECT_EQ(records.back().at("status"), "done");
    EXPECT_EQ(records.back().at("step"), 20);
}

void expect_csv_of_the_contract(const std::string& run, const std::vector<Json>& records) {
    const Words lines = lines_of(read_text(run + "/metrics.csv"));
    std::string header;
    for (const std::string& field : always_there().at("step")) {
        if (field != "bounds") header += field + ",";  // an object is no column
    }
    ASSERT_EQ(lines.size(), 1u + 6u) << "a header, step 0's evaluation and five logged steps";
    EXPECT_EQ(lines.front(), header + "heldout_loss,train_probe_loss,gap");
    for (const std::string& line : lines) EXPECT_EQ(occurrences(line, ","), 23) << line;
    EXPECT_TRUE(lines[1].starts_with("0,")) << lines[1];
    const std::string loss_of_one = events(records, "step").front().at("loss").dump();
    EXPECT_TRUE(lines[2].starts_with("1,512," + loss_of_one + ",")) << lines[2] << "\n" << loss_of_one;
}

void expect_files_of_the_contract(const std::string& run, int world) {
    for (const char* file : {"config.yaml", "metrics.jsonl", "metrics.csv"}) {
        EXPECT_FALSE(read_text(run + "/" + file).empty()) << file;
    }
    EXPECT_TRUE(std::filesystem::exists(run + "/log.rank0.txt"));
    EXPECT_EQ(lines_of(read_text(run + "/checkpoints/latest")), Words{"step-00000020"});
    for (const char* name : {"step-00000000", "step-00000010", "step-00000020"}) {
        const std::string checkpoint = run + "/checkpoints/" + name;
        const Manifest manifest = read_manifest(checkpoint);
        EXPECT_EQ(manifest.world_size, world);
        EXPECT_EQ(step_folder_name(manifest.step), name);
        EXPECT_EQ(manifest.tokens, manifest.step * 8 * 64);
        EXPECT_EQ(manifest.shards.size(), static_cast<std::size_t>(world));
        EXPECT_EQ(read_tensors(checkpoint).size(), manifest.tensors.size());
    }
}

TEST(Train, SameRunOnAnyRanks) {
    const ScratchFolder scratch;
    std::vector<Json> reference;
    for (const Ranks& ranks : {kAlone, threads(4), mpirun(1), mpirun(2), mpirun(4), mpirun(8)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const std::string out = scratch / name_of(ranks);
        const std::vector<Json> records = train_tiny(out, ranks);
        ASSERT_FALSE(records.empty());
        expect_records_of_the_contract(records, ranks.count);
        expect_csv_of_the_contract(out + "/tiny", records);
        expect_files_of_the_contract(out + "/tiny", ranks.count);
        if (reference.empty()) reference = records;
        const auto expected = losses(reference), found = losses(records);
        // Shortest round-trip form: equal texts are equal bits.
        EXPECT_EQ(events(records, "step")[0].at("loss").dump(),
                  events(reference, "step")[0].at("loss").dump());
        ASSERT_EQ(found.size(), expected.size());
        for (const auto& [step, loss] : expected) {
            EXPECT_NEAR(found.at(step), loss, 1e-5 * std::abs(loss)) << "step " << step;
        }
        EXPECT_LT(found.at(20), 4.6) << "it learns";
    }
}

TEST(Train, ParametersAreTheSameBeforeTheFirstStep) {
    const ScratchFolder scratch;
    train_tiny(scratch / "one", kAlone, {"train.steps=0", "optimizer.schedule.warmup=0"});
    train_tiny(scratch / "four", threads(4), {"train.steps=0", "optimizer.schedule.warmup=0"});
    expect_same_bytes(read_tensors(scratch / "one/tiny/checkpoints/step-00000000"),
                      read_tensors(scratch / "four/tiny/checkpoints/step-00000000"));
}

TEST(Train, ResolvedConfigurationStartsTheSameRun) {
    const ScratchFolder scratch;
    const auto first = train_tiny(scratch / "first", kAlone, {"train.steps=5", "optimizer.lr=1e-3"});
    const CommandResult again =
        moesaic({"train", scratch / "first/tiny/config.yaml", "--out", scratch / "second"});
    ASSERT_EQ(again.code, 0) << again.text();
    EXPECT_EQ(losses(read_records(scratch / "second/tiny")), losses(first));
}

TEST(Train, AnEarlierRunIsMovedAside) {
    const ScratchFolder scratch;
    const auto first = train_tiny(scratch / "out", kAlone, {"train.steps=5"});
    const auto second = train_tiny(scratch / "out", threads(2), {"train.steps=5", "run.seed=2"});
    EXPECT_EQ(read_records(scratch / "out/tiny.old-1"), first);
    EXPECT_NE(losses(second), losses(first));
}

TEST(Train, TheFolderOfARunThatGoesOnIsLeftAlone) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out", run = out + "/tiny";
    Command first(moesaic_words(tiny(out, {"train.steps=100000", "train.checkpoint_every=100000"})));
    while (first.running() && !std::filesystem::exists(run + "/checkpoints/step-00000000/manifest.json"))
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    // Half of the time-out is waited for a job that may be about to end.
    const Words second{"run.seed=2", "parallel.timeout_seconds=2"};
    for (const Ranks& ranks : {kAlone, mpirun(2), threads(2)}) {
        if (!can_run(ranks)) continue;
        for (const Words& more : {Words{}, Words{"--resume", "auto"}}) {
            SCOPED_TRACE(name_of(ranks) + (more.empty() ? "" : ", resumed"));
            const CommandResult result = moesaic(tiny(out, second, more), ranks);
            expect_failure(result, 2, {"; wait for it or end it, then start again"});
            EXPECT_NE(result.err.find(run + ": another run still writes there (started by process "),
                      std::string::npos)
                << result.err;
        }
    }
    EXPECT_FALSE(std::filesystem::exists(run + ".old-1"));
    EXPECT_EQ(events(read_records(run), "run").size(), 1u);
    EXPECT_TRUE(first.running());
    first.signal(SIGKILL);
    EXPECT_EQ(first.wait().code, 128 + SIGKILL);
    // What a killed run held is free at once.
    (void)train_tiny(out, kAlone, {"train.steps=10"}, {"--resume", "auto"});
}

}  // namespace
}  // namespace moesaic::e2e
