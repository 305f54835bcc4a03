// The files and the console lines that records become.
#include "runtime/metrics/sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/base/error.h"
#include "runtime/metrics/console_sink.h"
#include "runtime/metrics/jsonl_sink.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StepRecord step_record(i64 step) {
    StepRecord record;
    record.step = step;
    record.tokens = 8192 * step;
    record.loss = 3.412;
    record.loss_aux = 0.0101;
    record.grad_norm = 0.82;
    record.lr = 2.9e-3;
    record.tokens_per_s = 41234;
    record.step_ms = 200;
    record.exchange_ms = 36;
    record.exchange_bytes = 1 << 20;
    record.load_max_over_mean = 1.31;
    record.dropped_fraction = 0;
    return record;
}

EvalRecord eval_record(i64 step) {
    EvalRecord record;
    record.step = step;
    record.heldout_loss = 3.498;
    record.train_probe_loss = 3.412;
    record.gap = 0.086;
    record.gap_low = 0.041;
    record.gap_high = 0.131;
    record.bounds["heldout"].value = 3.61;
    record.bounds["heldout"].terms.add("empirical", 0.408);
    record.bounds["heldout"].terms.add("slack", 0.112);
    record.bounds["heldout"].details.add("units", 390);
    record.bounds["heldout"].assume_independent_samples();
    record.bounds["published"].value = 87.25;
    record.bounds["published"].vacuous = true;
    record.prequential_off = "the router adds noise while training";
    record.meaning = "In plain words.";
    return record;
}

std::vector<std::string> names_in(const std::string& line) {
    std::vector<std::string> names;
    const auto record = nlohmann::ordered_json::parse(line);
    for (const auto& member : record.items()) names.push_back(member.key());
    return names;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

TEST(Records, HaveTheFieldsOfTheContract) {
    EXPECT_THAT(
        names_in(json_of(RunRecord())),
        ElementsAre("event", "version", "commit", "config", "world_size", "expert_parallel", "expert_tensor",
                    "data_parallel", "device", "host", "parameters", "active_parameters", "training_samples",
                    "unit", "unit_reason", "balance", "capacity"));
    EXPECT_THAT(names_in(json_of(StepRecord())),
                ElementsAre("event", "step", "tokens", "loss", "loss_aux", "loss_z", "grad_norm", "lr",
                            "tokens_per_s", "step_ms", "exchange_ms", "exchange_bytes", "flops_utilization",
                            "load_max_over_mean", "dropped_fraction", "memory_bytes", "loss_importance",
                            "loss_load", "rank_load_max_over_mean", "slowest_rank", "slowest_phase",
                            "slowest_excess_ms", "bounds"));
    EXPECT_THAT(names_in(json_of(ExpertsRecord())),
                ElementsAre("event", "step", "layer", "load", "entropy", "dead", "weight_mean", "evenness",
                            "max_over_mean", "variation", "idle_steps", "router_entropy", "first_weight_mean",
                            "dropped_fraction", "bias_span", "alarms"));
    EXPECT_THAT(
        names_in(json_of(EvalRecord())),
        ElementsAre("event", "step", "heldout_loss", "train_probe_loss", "gap", "gap_low", "gap_high",
                    "heldout_error", "train_probe_error", "heldout_by_source", "bounds", "routing_changed",
                    "shifted_loss", "shifted_error", "heldout_target_error", "shifted_target_error", "unit",
                    "look", "train_unseen_loss", "train_unseen_error", "train_probe_age", "losses", "gaps",
                    "heldout_change", "gap_change", "gap_rise", "unseen_difference", "measured",
                    "domain_experts", "prequential_off", "heldout_off", "seen_off", "meaning",
                    "evaluation_share", "generalization_share"));
    EXPECT_THAT(names_in(json_of(AlarmRecord())),
                ElementsAre("event", "step", "kind", "message", "rank", "layer", "expert", "value",
                            "threshold", "action"));
    EXPECT_THAT(names_in(json_of(PlacementRecord())),
                ElementsAre("event", "step", "layers", "bytes", "seconds"));
    EXPECT_THAT(names_in(json_of(CheckpointRecord())),
                ElementsAre("event", "step", "path", "bytes", "seconds", "stall_seconds"));
    EXPECT_THAT(names_in(json_of(BoundRecord())),
                ElementsAre("event", "step", "prior_step", "bounds", "meaning", "seconds"));
    EXPECT_THAT(names_in(json_of(EndRecord())), ElementsAre("event", "step", "status", "seconds"));
}

TEST(Records, BoundsAreObjects) {
    const auto record = nlohmann::json::parse(json_of(eval_record(100)));
    EXPECT_EQ(record["bounds"]["heldout"]["value"], 3.61);
    EXPECT_EQ(record["bounds"]["heldout"]["terms"]["slack"], 0.112);
    EXPECT_EQ(record["bounds"]["heldout"]["vacuous"], false);
    EXPECT_EQ(record["bounds"]["heldout"]["assumptions"][0]["name"], "independent_samples");
    EXPECT_EQ(record["bounds"]["heldout"]["assumptions"][0]["status"], "unknown");
    EXPECT_TRUE(record["heldout_error"].is_null());
}

TEST(Sinks, ATableNamesThem) {
    EXPECT_THAT(sink_names(), ElementsAre("console", "csv", "jsonl", "prometheus", "tensorboard"));
    try {
        (void)make_sink("paper", {});
        FAIL() << "no error";
    } catch (const UserError& error) {
        EXPECT_EQ(std::string(error.what()),
                  "metrics.sinks: there is no sink \"paper\"; there are console, csv, jsonl, "
                  "prometheus, tensorboard");
    }
}

TEST(Sinks, JsonlHoldsEveryEvent) {
    const ScratchFolder run;
    SinkOptions options;
    options.folder = run.path();
    const auto sink = make_sink("jsonl", options);
    StepRecord broken = step_record(2);
    broken.loss = std::nan("");
    sink->write(RunRecord());
    sink->write(step_record(1));
    sink->write(broken);
    ExpertsRecord experts;
    experts.step = 2;
    experts.load = {5, 0, 3};
    experts.entropy = 0.5;
    experts.dead = 1;
    experts.weight_mean = 0.25;
    sink->write(experts);
    sink->write(eval_record(2));
    sink->write(AlarmRecord{2, "not_finite", "the loss is \"nan\"", 1, {}, {}, {}, {}});
    PlacementRecord placement{2, {}, 4096, 0.25};
    placement.layers.push_back({1, {3, 7}, {1, 0}, 1.75, 1.25});
    sink->write(placement);
    sink->write(CheckpointRecord{2, "x", 10, 0.5});
    sink->write(EndRecord{2, "done", 1.5});
    sink->flush();
    const std::string text = read_text(run / "metrics.jsonl");
    std::vector<std::string> events;
    for (const std::string& line : lines_of(text)) events.push_back(nlohmann::json::parse(line).at("event"));
    EXPECT_THAT(events, ElementsAre("run", "step", "step", "experts", "eval", "alarm", "placement",
                                    "checkpoint", "end"));
    EXPECT_EQ(
        lines_of(text)[6],
        R"({"event":"placement","step":2,"layers":[{"layer":1,"experts":[3,7],"ranks":[1,0],)"
        R"("max_over_mean_before":1.75,"max_over_mean_after":1.25,"copies":[],"copy_ranks":[]}],"bytes":4096,"seconds":0.25})");
    EXPECT_EQ(lines_of(text)[1],
              R"({"event":"step","step":1,"tokens":8192,"loss":3.412,"loss_aux":0.0101,"loss_z":null,)"
              R"("grad_norm":0.82,"lr":0.0029,"tokens_per_s":41234,"step_ms":200,"exchange_ms":36,)"
              R"("exchange_bytes":1048576,"flops_utilization":null,"load_max_over_mean":1.31,)"
              R"("dropped_fraction":0,"memory_bytes":null,"loss_importance":null,"loss_load":null,)"
              R"("rank_load_max_over_mean":null,"slowest_rank":null,"slowest_phase":"",)"
              R"("slowest_excess_ms":null,"bounds":{}})");
    EXPECT_THAT(lines_of(text)[2], HasSubstr(R"("loss":"nan")"));
}

TEST(Sinks, AFullDiskIsAnError) {
    const ScratchFolder run;
    std::filesystem::create_symlink("/dev/full", run / "metrics.jsonl");
    SinkOptions options;
    options.folder = run.path();
    const auto sink = make_sink("jsonl", options);
    try {
        sink->write(step_record(1));
        FAIL() << "no error";
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("metrics.jsonl: writing failed: No space left on device"));
    }
}

TEST(Sinks, CsvHasOneRowPerStepWithTheEvaluationAfterIt) {
    const ScratchFolder run;
    SinkOptions options;
    options.folder = run.path();
    {
        const auto sink = make_sink("csv", options);
        sink->write(eval_record(0));
        sink->write(step_record(1));
        sink->write(eval_record(1));
        sink->write(step_record(2));
        sink->flush();
        StepRecord broken = step_record(3);
        broken.loss = -std::nan("");
        sink->write(broken);
    }
    options.resume = true;
    { const auto sink = make_sink("csv", options); }
    EXPECT_EQ(read_text(run / "metrics.csv"),
              "step,tokens,loss,loss_aux,loss_z,grad_norm,lr,tokens_per_s,step_ms,exchange_ms,exchange_bytes,"
              "flops_utilization,load_max_over_mean,dropped_fraction,memory_bytes,loss_importance,"
              "loss_load,rank_load_max_over_mean,slowest_rank,slowest_phase,slowest_excess_ms,heldout_loss,"
              "train_probe_loss,gap\n"
              "0,,,,,,,,,,,,,,,,,,,,,3.498,3.412,0.086\n"
              "1,8192,3.412,0.0101,,0.82,0.0029,41234,200,36,1048576,,1.31,0,,,,,,,,3.498,3.412,0.086\n"
              "2,16384,3.412,0.0101,,0.82,0.0029,41234,200,36,1048576,,1.31,0,,,,,,,,,,\n"
              "3,24576,nan,0.0101,,0.82,0.0029,41234,200,36,1048576,,1.31,0,,,,,,,,,,\n");
}

TEST(Sinks, AppendingCutsATornLine) {
    const ScratchFolder run;
    write_text(run / "metrics.jsonl", "{\"event\":\"run\"}\n{\"event\":\"st");
    SinkOptions options;
    options.folder = run.path();
    options.resume = true;
    make_sink("jsonl", options)->write(EndRecord{2, "done", 1.5});
    EXPECT_EQ(read_text(run / "metrics.jsonl"),
              "{\"event\":\"run\"}\n{\"event\":\"end\",\"step\":2,\"status\":\"done\",\"seconds\":1.5}\n");
}

TEST(Sinks, ConsoleLinesAreForReading) {
    const ScratchFolder run;
    const std::string path = run / "console";
    double now = 1000;
    SinkOptions options;
    options.name = "quad";
    options.steps = 300;
    options.console = std::fopen(path.c_str(), "w");
    options.seconds = [&now] { return now; };
    ConsoleSink sink(options);
    sink.write(RunRecord{"0.1.0", "c9799f0", "", 4, 2, 1, 2, "cpu", "node1", 1234567, 523456, 900, "sequence",
                         "", "convention hf, 2 at perfect balance", "80 rows an expert"});
    now += 4;
    sink.write(step_record(10));
    now += 36;
    sink.write(step_record(100));
    sink.write(eval_record(100));
    sink.write(PlacementRecord{
        100, {{0, {2}, {1}, 1.2, 1.1}, {3, {4, 5, 6}, {0, 1, 0}, 1.924, 1.04}}, 12897485, 0.0032});
    sink.write(CheckpointRecord{100, "runs/quad/checkpoints/step-00000100", 12897485, 0.41, 0.0125});
    now += 8;
    StepRecord certified = step_record(120);
    certified.bounds["prequential"].value = 0.4321;
    sink.write(certified);
    sink.write(AlarmRecord{120, "dead_expert", "no tokens for 50 steps", {}, 2, 5, {}, {}});
    StepRecord broken;
    broken.step = 300;
    broken.loss = std::nan("");
    sink.write(broken);
    sink.write(EndRecord{300, "done", 125});
    std::fclose(options.console);
    EXPECT_EQ(
        read_text(path),
        "Moesaic 0.1.0 (c9799f0)  4 ranks (expert parallel 2 x data parallel 2)  cpu on node1\n"
        "quad: 1.23M parameters, 523k of them active per token  300 steps\n"
        "balance: convention hf, 2 at perfect balance\n"
        "capacity: 80 rows an expert\n"
        "step  10/300    3%  eta  1:56  loss  3.412  41.2k tok/s  exchange 18%  load 1.31x  dropped "
        "0.0%  |g| 0.82  lr 2.9e-03\n"
        "step 100/300   33%  eta  1:20  loss  3.412  41.2k tok/s  exchange 18%  load 1.31x  dropped "
        "0.0%  |g| 0.82  lr 2.9e-03\n"
        "eval 100/300  held-out  3.498  train probe  3.412  gap  0.086 [0.041, 0.131]\n"
        "  certificate: error at most 3.610 (0.408 on 390 held-out sequences)\n"
        "  bounds: published 87.2 (vacuous)\n"
        "  no certificate from fresh data: the router adds noise while training\n"
        "  In plain words.\n"
        "placement after step 100: 4 experts of 2 layers moved, fullest rank 1.92x the mean -> 1.10x  12.3 "
        "MiB "
        "in 3.2 ms\n"
        "checkpoint of step 100: runs/quad/checkpoints/step-00000100  12.3 MiB in 0.4 s, of which training "
        "waited 12 ms\n"
        "step 120/300   40%  eta  1:12  loss  3.412  held-out  3.498  gap  0.086  error <= 0.432  41.2k "
        "tok/s  exchange 18%  load 1.31x  dropped 0.0%  |g| 0.82  lr 2.9e-03\n"
        "ALARM at step 120: dead_expert: no tokens for 50 steps (layer 2, expert 5)\n"
        "step 300/300  100%  eta  0:00  loss    nan  held-out  3.498  gap  0.086  lr 0.0e+00\n"
        "done at step 300 after 2:05\n");
}

TEST(Sinks, ConsoleShowsRoutersWhereSomethingIsOddAndAtTheEnd) {
    const ScratchFolder run;
    const std::string path = run / "console";
    SinkOptions options;
    options.console = std::fopen(path.c_str(), "w");
    ConsoleSink sink(options);
    RouterHealthRecord health;
    health.step = 40;
    for (const i64 layer : {1, 3, 5}) {
        ExpertsRecord& record = health.layers.emplace_back();
        record.layer = layer;
        record.load = {4, 0, 4};
        record.dead = 1;
        record.max_over_mean = 1.5;
        record.variation = 0.707;
        record.evenness = 0.25;
        record.weight_mean = 0.5;
    }
    sink.write(health);  // all is well: nothing
    health.layers[0].alarms = {"dead_experts"};
    health.layers[2].alarms = {"dead_experts", "entropy"};
    health.layers[2].router_entropy = 1.0986;
    health.layers[2].first_weight_mean = 0.61;
    health.layers[2].dropped_fraction = 0.0125;
    sink.write(health);
    health.last = true;
    health.changed = {0.5, 0.25, 0.125};
    sink.write(health);
    RouterHealthRecord dense;
    dense.last = true;
    sink.write(dense);
    std::fclose(options.console);
    EXPECT_EQ(
        read_text(path),
        "  raised alarms: dead_experts (layers 1, 5)  entropy (layer 5)\n"
        "routers in step 40 (load: max/mean, variation, evenness, experts without tokens)\n"
        "  layer  max/mean  variation  evenness  dead  router entropy  first weight  dropped  changed  "
        "alarms\n"
        "      1      1.50       0.71     0.250     1               -             -        -    50.0%  "
        "dead_experts\n"
        "      3      1.50       0.71     0.250     1               -             -        -    25.0%  -\n"
        "      5      1.50       0.71     0.250     1           1.099         0.610     1.2%    12.5%  "
        "dead_experts, entropy\n");
}

TEST(Sinks, ConsoleTextsAreCompact) {
    EXPECT_EQ(detail::duration_text(59.6), "1:00");
    EXPECT_EQ(detail::duration_text(7500), "2h05m");
    EXPECT_EQ(detail::duration_text(273600), "3d04h");
    EXPECT_EQ(detail::duration_text(std::nan("")), "?");
    EXPECT_EQ(detail::compact_text(999.4), "999");
    EXPECT_EQ(detail::compact_text(999.6), "1.00k");
    EXPECT_EQ(detail::compact_text(9999), "10.0k");
    EXPECT_EQ(detail::compact_text(1.5e9), "1.50G");
    EXPECT_EQ(detail::bytes_text(1023), "1023 bytes");
    EXPECT_EQ(detail::bytes_text(1 << 20), "1.0 MiB");
}

}  // namespace
}  // namespace moesaic
