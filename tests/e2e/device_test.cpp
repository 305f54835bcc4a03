// run.device from end to end: what is said without a GPU, and the same training on emulated GPUs.
#include <cstdlib>
#include <filesystem>
#include <regex>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// The back end on the emulator, where this build has it.
const char* const kEmulated = MOESAIC_EMULATED_GPU;

constexpr bool kHasNccl = MOESAIC_EMULATED_NCCL;

bool has_emulator() {
    return std::filesystem::exists(kEmulated);
}

CommandOptions with_module(const std::string& path, int devices = 1) {
    CommandOptions options;
    options.environment["MOESAIC_CUDA_MODULE"] = path;
    options.environment["MOESAIC_EMULATED_GPUS"] = std::to_string(devices);
    options.timeout_seconds = 110;
    return options;
}

Words on_device(const std::string& out, const std::string& device, const Words& more) {
    Words overrides{"run.device=" + device,
                    "train.log_every=1",
                    "train.batch_sequences=4",
                    "train.eval_every=20",
                    "train.checkpoint_every=20",
                    "task.data.seq_len=16",
                    "generalization.heldout_sequences=8",
                    "generalization.probe_sequences=8"};  // emulated GPUs are slow
    overrides.insert(overrides.end(), more.begin(), more.end());
    return tiny(out, overrides);
}

std::vector<Json> train_on(const std::string& out, const std::string& device, const Ranks& ranks,
                           const Words& more = {}, int devices = 1) {
    const CommandResult result =
        moesaic(on_device(out, device, more), ranks, with_module(kEmulated, devices));
    EXPECT_EQ(result.code, 0) << result.text();
    return result.code == 0 ? read_records(out + "/tiny") : std::vector<Json>();
}

/// The experts' loads of the first step.
std::vector<Json> first_routing(const std::vector<Json>& records) {
    std::vector<Json> loads;
    for (const Json& record : events(records, "experts"))
        if (record.at("step") == 1) loads.push_back(record.at("load"));
    return loads;
}

void expect_same_training(const std::vector<Json>& gpu, const std::vector<Json>& cpu, double tolerance) {
    ASSERT_FALSE(gpu.empty() || cpu.empty());
    EXPECT_EQ(gpu.front().at("device"), "cuda");
    EXPECT_EQ(cpu.front().at("device"), "cpu");
    EXPECT_EQ(first_routing(gpu), first_routing(cpu));
    const std::map<i64, double> want = losses(cpu), have = losses(gpu);
    EXPECT_EQ(have.size(), 20u);
    for (const auto& [step, loss] : have) EXPECT_NEAR(loss, want.at(step), tolerance) << "step " << step;
}

TEST(Device, TrainsOnEmulatedGpusAsOnTheCpu) {
    if (!has_emulator()) GTEST_SKIP() << "this build has no emulated GPUs";
    const ScratchFolder scratch;
    const std::vector<Json> cpu = train_on(scratch / "cpu", "cpu", kAlone);
    for (const Ranks& ranks : {kAlone, threads(2), mpirun(4)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        expect_same_training(train_on(scratch / name_of(ranks), "cuda", ranks), cpu, 1e-5);
    }
}

TEST(Device, TrainsInBf16OnAnEmulatedGpu) {
    if (!has_emulator()) GTEST_SKIP() << "this build has no emulated GPUs";
    const ScratchFolder scratch;
    const Words narrow{"train.precision=bf16"};
    const std::vector<Json> cpu = train_on(scratch / "cpu", "cpu", kAlone, narrow);
    expect_same_training(train_on(scratch / "gpu", "cuda", kAlone, narrow), cpu, 1e-2);
}

/// Every access of every kernel, by the memory checker: a finding ends the training.
TEST(Device, TrainsTwoStepsUnderTheMemoryChecker) {
    const std::string checked = MOESAIC_CHECKED_GPU;
    if (!std::filesystem::exists(checked)) GTEST_SKIP() << "this build has no checked kernels";
    const ScratchFolder scratch;
    for (const std::string precision : {"fp32", "bf16"}) {
        SCOPED_TRACE(precision);
        CommandOptions options = with_module(checked);
        options.environment["MOESAIC_EMULATED_CHECK"] = "1";
        const Words words = on_device(scratch / precision, "cuda",
                                      {"train.steps=2", "train.batch_sequences=2", "task.data.seq_len=8",
                                       "optimizer.schedule.warmup=1", "train.precision=" + precision});
        const CommandResult result = moesaic(words, kAlone, options);
        ASSERT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(losses(read_records(scratch / precision + "/tiny")).size(), 2u);
        std::smatch seen;
        ASSERT_TRUE(std::regex_search(result.err, seen, std::regex("(\\d+) accesses of kernels checked")))
            << result.err;
        EXPECT_GT(std::stol(seen[1]), 100'000) << "too few to be a training";
    }
}

TEST(Device, BenchLayerOnAnEmulatedGpu) {
    if (!has_emulator()) GTEST_SKIP() << "this build has no emulated GPUs";
    const auto with = [&](const Words& more) {
        Words all{"bench",    "layer", "--tokens", "40", "--width", "48",
                  "--hidden", "64",    "-n",       "1",  "-w",      "0"};
        all.insert(all.end(), more.begin(), more.end());
        return moesaic(all, kAlone, with_module(kEmulated));
    };
    const CommandResult result = with({"--device", "cuda", "--json"});
    ASSERT_EQ(result.code, 0) << result.text();
    const Json line = Json::parse(result.out);
    EXPECT_EQ(line.at("device"), "cuda");
    EXPECT_EQ(line.at("wrong"), 0);
    EXPECT_GT(line.at("peak_gflops"), 0);
    EXPECT_EQ(Json::parse(with({"--device", "cuda", "--json", "--check", "0"}).out).at("wrong"), nullptr);
    expect_failure(with({"--device", "cuda", "--plant-fault", "3", "--dtype", "bf16"}), 3,
                   {"bench layer: 3 values are wrong"});
    expect_failure(with({"--plant-fault", "3", "--check", "0", "--device", "gpu"}), 2,
                   {"--plant-fault: ", "--device: 'gpu' is none; one of cpu, cuda, auto"});
}

/// Ranks as threads, each with an emulated GPU and an end of the emulated NCCL.
TEST(Device, TrainsOverNcclAsOnTheCpu) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    const std::vector<Json> cpu = train_on(scratch / "cpu", "cpu", kAlone);
    for (const int gpus : {2, 4}) {
        SCOPED_TRACE(gpus);
        const std::string out = scratch / std::to_string(gpus);
        expect_same_training(train_on(out, "cuda", threads(gpus), {"parallel.comm=nccl"}, gpus), cpu, 1e-5);
    }
}

TEST(Device, TrainsInBf16OverNccl) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    const std::vector<Json> cpu = train_on(scratch / "cpu", "cpu", kAlone, {"train.precision=bf16"});
    const Words narrow{"parallel.comm=nccl", "train.precision=bf16"};
    expect_same_training(train_on(scratch / "gpus", "cuda", threads(2), narrow, 2), cpu, 1e-2);
}

/// Three sequences a step for four ranks, one of which has none; one choice of eight experts, so that some go
/// without.
TEST(Device, UnevenInputTrainsAsOnTheCpu) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    const Words uneven{"train.batch_sequences=3", "model.moe.experts=8", "model.moe.top_k=1"};
    Words nccl = uneven, narrow = uneven;
    nccl.emplace_back("parallel.comm=nccl");
    narrow.emplace_back("train.precision=bf16");
    const std::vector<Json> cpu = train_on(scratch / "cpu", "cpu", kAlone, uneven);
    for (const Json& load : first_routing(cpu))
        EXPECT_EQ(std::count(load.begin(), load.end(), 0) > 0, true) << "an expert without rows: " << load;
    expect_same_training(train_on(scratch / "nccl", "cuda", threads(4), nccl, 4), cpu, 1e-5);
    if (can_run(mpirun(4)))
        expect_same_training(train_on(scratch / "mpi", "cuda", mpirun(4), uneven), cpu, 1e-5);
    const std::vector<Json> cpu_bf16 = train_on(scratch / "cpu_bf16", "cpu", kAlone, narrow);
    narrow.emplace_back("parallel.comm=nccl");
    expect_same_training(train_on(scratch / "nccl_bf16", "cuda", threads(4), narrow, 4), cpu_bf16, 1e-2);
}

TEST(Device, ExchangesByNodesGoOverNccl) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    const std::vector<Json> cpu = train_on(scratch / "cpu", "cpu", kAlone);
    for (const std::string exchange : {"hierarchical", "dedup"}) {
        SCOPED_TRACE(exchange);
        const Words by_nodes{"parallel.comm=nccl", "parallel.exchange=" + exchange, "parallel.expert=4",
                             "parallel.ranks_per_node=2"};
        expect_same_training(train_on(scratch / exchange, "cuda", threads(4), by_nodes, 4), cpu, 1e-5);
    }
}

TEST(Device, WithoutNcclRowsGoThroughTheHostOrTheUserIsTold) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    const Words few{"train.steps=5"}, nccl{"train.steps=5", "parallel.comm=nccl"};
    const CommandResult fallen =  // two ranks on one GPU
        moesaic(on_device(scratch / "auto", "cuda", few), threads(2), with_module(kEmulated));
    EXPECT_EQ(fallen.code, 0) << fallen.text();
    EXPECT_EQ(occurrences(fallen.err, "parallel.comm: auto: mpi, through the host's memory, since"), 1);
    EXPECT_EQ(occurrences(fallen.err, "Duplicate GPU"), 1) << fallen.err;
    expect_failure(moesaic(on_device(scratch / "nccl", "cuda", nccl), threads(2), with_module(kEmulated)), 2,
                   {"parallel.comm: nccl: ", "Duplicate GPU", "use parallel.comm: mpi"});
    expect_failure(moesaic(on_device(scratch / "cpu", "cpu", nccl), threads(2)), 2,
                   {"parallel.comm: nccl: moves memory of GPUs", "use auto or mpi"});
}

/// One rank's NCCL fails in its first exchange, while the other waits for it.
TEST(Device, NcclThatFailsItsFirstExchangeIsLeftForMpi) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    CommandOptions failing = with_module(kEmulated, 2);
    failing.environment["MOESAIC_EMULATED_NCCL_FAILS"] = "1";
    const Words few{"train.steps=5"}, nccl{"train.steps=5", "parallel.comm=nccl"};
    const CommandResult fallen = moesaic(on_device(scratch / "auto", "cuda", few), threads(2), failing);
    EXPECT_EQ(fallen.code, 0) << fallen.text();
    EXPECT_EQ(occurrences(fallen.err, "parallel.comm: auto: mpi, through the host's memory, since"), 1)
        << fallen.text();
    EXPECT_EQ(losses(read_records(scratch / "auto/tiny")).size(), 5U);
    expect_failure(moesaic(on_device(scratch / "nccl", "cuda", nccl), threads(2), failing), 2,
                   {"parallel.comm: nccl: ", "use parallel.comm: mpi"});
}

/// Rows that NCCL moves never pass the host, which makes checksums.
TEST(Device, ChecksumsOverNcclAreRefused) {
    if (!has_emulator() || !kHasNccl) GTEST_SKIP() << "this build has no emulated NCCL";
    const ScratchFolder scratch;
    const Words checked{"train.steps=5", "parallel.checksums=true"};
    Words nccl = checked;
    nccl.emplace_back("parallel.comm=nccl");
    expect_failure(moesaic(on_device(scratch / "nccl", "cuda", nccl), threads(2), with_module(kEmulated, 2)),
                   2, {"parallel.checksums: rows that NCCL moves have none; use parallel.comm: mpi"});
    const CommandResult result =
        moesaic(on_device(scratch / "auto", "cuda", checked), threads(2), with_module(kEmulated, 2));
    EXPECT_EQ(result.code, 0) << result.text();
}

TEST(Device, CudaWithoutOneIsTheUsersToMend) {
    const ScratchFolder scratch;
    if (!std::filesystem::exists("/dev/nvidiactl")) {
        const CommandResult none = moesaic(on_device(scratch / "none", "cuda", {}), threads(2));
        expect_failure(none, 2, {"run.device: cuda: ", "use run.device: cpu"});
    }
    const CommandResult result =
        moesaic(on_device(scratch / "out", "cuda", {}), kAlone, with_module(scratch / "no.so"));
    expect_failure(result, 2, {"run.device: cuda: ", "no.so cannot be opened", "use run.device: cpu"});
}

TEST(Device, CheckSaysWhatItKnowsOfGpus) {
    const ScratchFolder scratch;
    Words words = on_device(scratch / "out", "cuda", {});
    words.emplace_back("--check");
    const CommandResult result = moesaic(words);
    EXPECT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.out, "no GPU has been measured"), 1) << result.text();
}

TEST(Device, GpuCheckSaysThatThereIsNoDevice) {
    if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there may be one";
    const CommandResult result = Command({"tests/gpu_check"}).wait();
    EXPECT_EQ(result.code, 3) << result.text();
    EXPECT_EQ(occurrences(result.err, "gpu_check: no CUDA device on this machine"), 1) << result.text();
    EXPECT_EQ(Command({"tests/gpu_check", "--help"}).wait().code, 2);
}

/// A part of it, from end to end.
TEST(Device, GpuCheckRunsOnEmulatedGpus) {
    if (!has_emulator()) GTEST_SKIP() << "this build has no emulated GPUs";
    const std::string build = std::filesystem::path(kEmulated).parent_path();
    CommandOptions options;
    options.timeout_seconds = 110;
    const auto check = [&](const std::string& only) {
        return Command({"tests/gpu_check", "--emulated", "--built", "--build", build, "--only", only},
                       options)
            .wait();
    };
    const CommandResult result = check("training in fp32|kernels and products|step of one GPU, fp32$");
    EXPECT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.out, " passed "), 3) << result.text();
    EXPECT_EQ(occurrences(result.out, "losses of 20 steps"), 1) << result.text();
    EXPECT_EQ(occurrences(result.out, "DeepSeek-V3-like     RMSNorm, backward"), 1) << result.text();
    EXPECT_EQ(check("no such check").code, 2);
}

TEST(Device, AutoFallsBackToTheCpuAndSaysSo) {
    const ScratchFolder scratch;
    const CommandResult result = moesaic(on_device(scratch / "out", "auto", {"train.steps=5"}), threads(2),
                                         with_module(scratch / "no.so"));
    EXPECT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.err, "run.device: auto: the CPU, since"), 1) << result.err;
}

}  // namespace
}  // namespace moesaic::e2e
