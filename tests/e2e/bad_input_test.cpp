// The user's mistakes: exit code 2, every mistake with its place, each said once on any kind of ranks.
#include <filesystem>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

const std::vector<Ranks>& each_kind() {
    static const std::vector<Ranks> kKinds{kAlone, mpirun(2), threads(2)};
    return kKinds;
}

/// The command fails alike alone, under mpirun and with threads.
void expect_mistake(const Words& arguments, const Words& texts) {
    for (const Ranks& ranks : each_kind()) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        expect_failure(moesaic(arguments, ranks), 2, texts);
    }
}

TEST(BadInput, FiveMistakesAreFiveLines) {
    const ScratchFolder scratch;
    const std::string file = scratch / "five.yaml";
    write_text(file,
               "run: {name: five}\n"
               "task: {kind: lm, data: {path: configs/data/quad, seq_len: -64}}\n"
               "model:\n"
               "  widht: 32\n"
               "  layers: many\n"
               "  moe: {experts: 4, top_k: 5}\n"
               "optimizer: {kind: adam}\n");
    const Words arguments{"train", file, "--out", scratch / "out"};
    expect_mistake(arguments,
                   {file + ":2: task.data.seq_len: '-64' is out of range; between 1 and 16777216\n",
                    file + ":4: model.widht: is no key of this section; did you mean 'width'?\n",
                    file + ":5: model.layers: 'many' is not a whole number; ",
                    file + ":6: model.moe.top_k: a token cannot visit 5 of 4 experts; ",
                    file + ":7: optimizer.kind: 'adam' is unknown; did you mean 'adamw'?"});
    EXPECT_EQ(lines_of(moesaic(arguments).err).size(), 5u);
    EXPECT_FALSE(std::filesystem::exists(scratch / "out")) << "nothing was begun";
}

TEST(BadInput, UnknownSubcommandsAndOptionsAreNamed) {
    for (const Ranks& ranks : {kAlone, mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        expect_failure(moesaic({"trian", "configs/tiny.yaml"}, ranks), 2,
                       {"moesaic: 'trian' is no subcommand; did you mean 'train'?"});
        expect_failure(moesaic({"train", "configs/tiny.yaml", "--wat"}, ranks), 2, {"--wat"});
        expect_failure(moesaic({"train", "configs/tiny.yaml", "--chekc"}, ranks), 2,
                       {"not expected: --chekc; did you mean '--check'?"});
        expect_failure(moesaic({"--wat"}, ranks), 2, {"not expected: --wat; see moesaic --help"});
        expect_failure(moesaic({"train"}, ranks), 2, {"CONFIG"});
        expect_failure(moesaic({}, ranks), 2, {"subcommand is required"});
    }
}

TEST(BadInput, MissingFiles) {
    expect_mistake({"train", "nowhere/no.yaml"}, {"nowhere/no.yaml: no such file; "});
    const ScratchFolder scratch;
    const std::string data = scratch / "no-data";
    expect_mistake(tiny(scratch / "out", {"task.data.path=" + data}), {data + ": no such file or folder; "});
    const std::string run = scratch / "no-run";
    expect_mistake({"eval", run}, {run + ": there is no such folder; "});
    expect_mistake(tiny(scratch / "out", {}, {"--resume", run}), {run + ": there is no such folder; "});
    EXPECT_FALSE(std::filesystem::exists(scratch / "out")) << "nothing was begun";
}

TEST(BadInput, DataThatGiveNoSequence) {
    const ScratchFolder scratch;
    const std::string empty = scratch / "empty.txt", small = scratch / "small.txt";
    write_text(empty, "");
    write_text(small, "too short");
    std::filesystem::create_directory(scratch / "folder");
    expect_mistake(tiny(scratch / "out", {"task.data.path=" + empty}), {empty + ": the file is empty; "});
    expect_mistake(tiny(scratch / "out", {"task.data.path=" + small}), {small + ": "});
    expect_mistake(tiny(scratch / "out", {"task.data.path=" + (scratch / "folder")}),
                   {(scratch / "folder") + ": "});
}

TEST(BadInput, ExpertsAndLayoutsThatDoNotFit) {
    const ScratchFolder scratch;
    expect_mistake(tiny(scratch / "out", {"model.moe.top_k=5"}),
                   {"--set model.moe.top_k=5: model.moe.top_k: a token cannot visit 5 of 4 experts; "});
    for (const Ranks& ranks : {mpirun(4), threads(4)}) {
        if (!can_run(ranks)) continue;
        expect_failure(
            moesaic(tiny(scratch / "out", {"parallel.expert=3", "model.moe.experts=6"}), ranks), 2,
            {"parallel.expert: 3 does not divide both 4 ranks and 6 experts; use one of 1, 2, or auto"});
    }
    EXPECT_FALSE(std::filesystem::exists(scratch / "out")) << "nothing was begun";
}

TEST(BadInput, AFolderThatCannotBeMade) {
    const ScratchFolder scratch;
    write_text(scratch / "file", "in the way");
    expect_mistake(tiny(scratch / "file", {"train.steps=5"}),
                   {(scratch / "file/tiny") + ": cannot be created: "});
}

TEST(BadInput, WhatThisVersionLacksIsSaid) {
    const ScratchFolder scratch;
    expect_mistake(
        tiny(scratch / "out", {"parallel.pipeline=2", "parallel.tensor=2"}),
        {"parallel.pipeline: '2' is not in this version; ", "parallel.tensor: '2' is not in this version; "});
}

TEST(BadInput, WhatElasticRunsCannotHave) {
    const ScratchFolder scratch;
    expect_mistake(
        tiny(scratch / "out", {"train.determinism=elastic", "train.precision=fp64", "run.device=cuda",
                               "cpu.gemm=onednn", "model.moe.activation=prelu", "parallel.exchange=dedup",
                               "parallel.dedup_reduce=node", "parallel.placement.kind=load_aware",
                               "parallel.placement.copies=1", "parallel.expert_tensor=2"}),
        {"train.precision: train.determinism: elastic: gradients are summed in steps of 1e-13, ",
         "run.device: train.determinism: elastic: cuBLAS ", "cpu.gemm: train.determinism: elastic: oneDNN ",
         "model.moe.activation: train.determinism: elastic: ",
         "parallel.dedup_reduce: train.determinism: elastic: ",
         "parallel.placement.copies: train.determinism: elastic: ",
         "parallel.expert_tensor: train.determinism: elastic: slices of an expert "});
    expect_mistake({"train", "configs/momlp.yaml", "--check", "--set", "train.determinism=elastic"},
                   {"model.kind: train.determinism: elastic: a momlp's experts "});
    expect_mistake(tiny(scratch / "out", {"train.determinism=elastic", "parallel.wire=bf16"}),
                   {"parallel.wire: train.determinism: elastic: rows would be rounded only where "});
}

TEST(BadInput, StepsThatAResumedRunDoesNotDo) {
    const ScratchFolder scratch;
    (void)train_tiny(scratch / "out", threads(2));
    const std::string from = checkpoint_of(scratch / "out", 10);
    expect_mistake(tiny(scratch / "new", {},
                        {"--resume", from, "--trace-step", "10", "--inject", "late:rank=0,step=5,seconds=0"}),
                   {"--trace-step 10: the run goes on after step 10; give a step from 11 to 20\n",
                    "--inject: late: the run goes on after step 10; give a later step than 5\n"});
    // Whoever is started again by `auto` did not choose where.
    const CommandResult again =
        moesaic(tiny(scratch / "out", {}, {"--resume", "auto", "--trace-step", "10"}));
    EXPECT_EQ(again.code, 0) << again.text();
    EXPECT_EQ(occurrences(again.err, "warning: --trace-step 10: the run goes on after step 20"), 1)
        << again.err;
}

TEST(BadInput, ThreadsUnderMpirun) {
    if (!have_mpi()) GTEST_SKIP() << "built without MPI";
    const CommandResult result =
        moesaic({"train", "configs/tiny.yaml", "--ranks-as-threads", "2"}, mpirun(2));
    expect_failure(result, 2, {"--ranks-as-threads is for a single process"});
}

TEST(BadInput, ALossThatIsNotFiniteEndsTheRun) {
    const ScratchFolder scratch;
    for (const Ranks& ranks : each_kind()) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result =
            moesaic(tiny(scratch / name_of(ranks), {"optimizer.lr=1e6", "optimizer.clip=none",
                                                    "optimizer.weight_decay=100", "train.precision=fp32"}),
                    ranks);
        expect_failure(result, 1, {"nothing was updated; the newest checkpoint is of step 0"});
        EXPECT_EQ(occurrences(result.err, "error: "), 1) << result.text();
    }
}

}  // namespace
}  // namespace moesaic::e2e
