// cpu.gemm: onednn from end to end: what is said without the library, and the same training with it.
#include "runtime/cpu/onednn.h"

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

CommandOptions without_library() {
    CommandOptions options;
    options.environment[kOneDnnVariable] = "/nowhere/libdnnl.so";
    return options;
}

TEST(OneDnnProducts, WithoutTheLibraryAreTheUsersToMend) {
    const ScratchFolder scratch;
    for (const Ranks& ranks : {kAlone, threads(2)}) {
        const CommandResult result =
            moesaic(tiny(scratch / "out", {"cpu.gemm=onednn"}), ranks, without_library());
        expect_failure(result, 2,
                       {"cpu.gemm: onednn: MOESAIC_ONEDNN names /nowhere/libdnnl.so, which cannot be opened",
                        "libdnnl2", "or use cpu.gemm: own"});
    }
    expect_failure(moesaic({"bench", "gemm", "--against", "onednn"}, kAlone, without_library()), 2,
                   {"--against onednn: MOESAIC_ONEDNN names /nowhere/libdnnl.so"});
}

TEST(OneDnnProducts, TrainToTheSameLossesAndVerifyToRounding) {
    if (!onednn_library().library) GTEST_SKIP() << onednn_library().problem;
    const ScratchFolder scratch;
    std::map<std::string, std::map<i64, double>> losses_of;
    for (const std::string gemm : {"own", "onednn"}) {
        const Words words{"cpu.gemm=" + gemm, "train.steps=5", "train.log_every=1"};
        const CommandResult result = moesaic(tiny(scratch / gemm, words), threads(2));
        ASSERT_EQ(result.code, 0) << result.text();
        losses_of[gemm] = losses(read_records(scratch / gemm + "/tiny"));
    }
    EXPECT_EQ(losses_of["onednn"].size(), 5U);
    for (const auto& [step, loss] : losses_of["onednn"]) EXPECT_NEAR(loss, losses_of["own"][step], 1e-4);
    const CommandResult verify =
        moesaic({"verify", "configs/tiny.yaml", "--layouts", "1,2", "--set", "cpu.gemm=onednn"}, kAlone);
    EXPECT_EQ(verify.code, 0) << verify.text();
    EXPECT_EQ(occurrences(verify.out, "compared to rounding: bits need cpu.gemm: own"), 1) << verify.out;
}

TEST(OneDnnProducts, StandBesideOursInTheBenchmark) {
    if (!onednn_library().library) GTEST_SKIP() << onednn_library().problem;
    const Words words{"bench",     "gemm", "--against",    "onednn", "--m",      "17",
                      "--n",       "64",   "--k",          "32",     "--groups", "0,4",
                      "--threads", "2",    "--iterations", "2",      "--warmup", "0"};
    const CommandResult result = moesaic(words, kAlone);
    EXPECT_EQ(result.code, 0) << result.text();
    EXPECT_EQ(occurrences(result.out, "other"), 2) << result.out;
    Words json = words;
    json.insert(json.end(), {"--json", "--min-ratio", "90"});
    const CommandResult gated = moesaic(json, kAlone);
    EXPECT_EQ(gated.code, 3) << gated.text();
    EXPECT_EQ(occurrences(gated.out, "\"against\":\"oneDNN "), 10) << gated.out;
    EXPECT_EQ(occurrences(gated.err, "less than --min-ratio 90"), 1) << gated.err;
}

}  // namespace
}  // namespace moesaic::e2e
