#include "runtime/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "runtime/base/error.h"
#include "runtime/config/load.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/config/config_checks.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

/// The whole of the contract's section 3, as a user would copy it.
constexpr const char* kContract = R"(
run:        {name: quad, seed: 1, out: runs, device: auto}
parallel:   {expert: auto, zero: 1, comm: auto, exchange: auto, receive_budget: 2.0,
             expert_tensor: 1, tensor: 1, pipeline: 1, context: 1}
task:
  kind: lm
  data: {path: configs/data/quad, format: auto, tokenizer: bytes, seq_len: 256, validation: 0.1}
model:
  kind: transformer
  width: 128
  layers: 4
  heads: 4
  kv_heads: 4
  head_dim: auto
  qk_norm: none
  norm_eps: 1e-5
  rope_theta: 10000
  init_std: 0.02
  clip_qkv: none
  dense_hidden: 512
  tie_embeddings: false
  moe: {experts: 8, top_k: 2, hidden: 256, activation: swiglu, every: 1, shared_experts: 0,
        router: {kind: top_k, score: softmax, normalize: auto},
        balance: {aux: 0.01, convention: megatron, scope: micro, z: 0.001},
        capacity: dropless}
optimizer:  {kind: adamw, lr: 3e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: 1.0,
             schedule: {kind: cosine, warmup: 50, floor: 0.1}}
train:      {steps: 300, batch_sequences: 32, micro_sequences: 4, log_every: 10, eval_every: 100,
             checkpoint_every: 100, precision: fp32, determinism: layout}
generalization: {probe_sequences: 64, loss: all, delta: 0.05, bounds: all}
metrics:    {sinks: [console, jsonl, csv]}
)";

TEST(Config, ContractsConfigurationIsAllDefaults) {
    const LoadedConfig loaded = parse(kContract);
    EXPECT_EQ(loaded.diagnostics.text(), "");
    Config expected;
    expected.run.name = "quad";
    EXPECT_EQ(to_yaml(loaded.config), to_yaml(expected));
    EXPECT_TRUE(loaded.config == expected);
}

TEST(Config, WholeNumbersAreDecimal) {  // YAML 1.1 would read 64 and 16
    const LoadedConfig loaded = parse("train: {steps: 0100}", {"optimizer.schedule.warmup=010"});
    EXPECT_EQ(loaded.diagnostics.text(), "");
    EXPECT_EQ(loaded.config.train.steps, 100);
    EXPECT_EQ(loaded.config.optimizer.schedule.warmup, 10);
    expect_one(parse("train:\n  steps: 0x10"), "c.yaml:2", "train.steps", "'0x10' is not a whole number");
}

TEST(Config, MistakesComeInTheOrderOfTheFileEachWithALine) {
    const LoadedConfig loaded =
        parse("metrics: {sinks: [csv, csv]}\noptimizer: {lr: x}\ntrain: {steps: 3}\nrun: {nam: y}");
    std::vector<std::string> places;
    for (const Diagnostic& one : loaded.diagnostics.list()) places.push_back(one.where + " " + one.key);
    EXPECT_EQ(places, (Words{"c.yaml:1 metrics.sinks", "c.yaml:2 optimizer.lr",
                             "c.yaml:2 optimizer.schedule.warmup", "c.yaml:4 run.nam"}));
}

TEST(Config, AModelBeyondAllMeasureIsRefused) {
    const LoadedConfig loaded =
        parse("model:\n  width: 16777216\n  layers: 100000\n  moe: {experts: 65536, hidden: 16777216}",
              {"model.dense_hidden=1"});
    expect_one(loaded, "c.yaml:1", "model", "would have");
}

TEST(Config, EveryKeyOfTheContractIsKnownAlone) {
    const LoadedConfig loaded = parse(kContract);
    const auto values = flatten(loaded.config);
    int keys = 0;
    for (const auto& [key, value] : values) {
        if (!loaded.where.contains(key)) continue;
        EXPECT_EQ(parse("", {key + "=" + value}).diagnostics.text(), "") << key;
        ++keys;
    }
    EXPECT_EQ(keys, 68) << "keys of the contract";
}

TEST(Config, EmptyTextIsTheDefaults) {
    for (const char* text : {"", "\n", "# only a comment\n", "run:\n", "---\n"}) {
        const LoadedConfig loaded = parse(text);
        EXPECT_EQ(loaded.diagnostics.text(), "") << text;
        EXPECT_TRUE(loaded.config == Config{}) << text;
    }
}

TEST(Config, FiveMistakesAreFiveMessagesWithTheirLines) {
    const LoadedConfig loaded = parse(
        "run: {name: five}\n"
        "task: {kind: lm, data: {path: configs/data/quad, seq_len: -64}}\n"
        "model:\n"
        "  widht: 32\n"
        "  layers: many\n"
        "  moe: {experts: 4, top_k: 5}\n"
        "optimizer: {kind: adam}\n");
    std::vector<std::pair<std::string, std::string>> found;
    for (const Diagnostic& one : loaded.diagnostics.list()) {
        found.emplace_back(one.where, one.key);
        EXPECT_NE(one.message, "");
        EXPECT_NE(one.hint, "");
    }
    std::sort(found.begin(), found.end());
    EXPECT_EQ(found, (std::vector<std::pair<std::string, std::string>>{{"c.yaml:2", "task.data.seq_len"},
                                                                       {"c.yaml:4", "model.widht"},
                                                                       {"c.yaml:5", "model.layers"},
                                                                       {"c.yaml:6", "model.moe.top_k"},
                                                                       {"c.yaml:7", "optimizer.kind"}}));
    const std::string text = loaded.diagnostics.text();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4);
    EXPECT_THAT(text, HasSubstr("c.yaml:4: model.widht: is no key of this section; did you mean 'width'?"));
    try {
        loaded.diagnostics.throw_if_any();
        FAIL() << "nothing was thrown";
    } catch (const UserError& error) {
        EXPECT_EQ(error.what(), text);
    }
}

TEST(Config, PrintsWhatItReads) {
    Config odd;
    odd.run = {"a-b_c.1", 999999999999999, "a folder/with: \"quotes\" # and\ttabs \\", "cpu"};
    odd.parallel.expert = 2;
    odd.parallel.receive_budget = 0.1 + 0.2;
    odd.parallel.zero = 0;
    odd.task.data.path = "true";
    odd.task.data.validation = 0;
    odd.model.head_dim = 6;
    odd.model.norm_eps = 5e-324;
    odd.model.clip_qkv = 1.0 / 3;
    odd.model.qk_norm = "head";
    odd.model.tie_embeddings = true;
    odd.model.moe.router.normalize = false;
    odd.optimizer.betas = {0, 0.999999999};
    odd.optimizer.clip.reset();
    odd.train.keep_checkpoints = 3;
    odd.generalization.heldout_sequences = 10;
    odd.metrics.sinks = {};
    odd.cpu.threads = 4;
    odd.cpu.gemm = "onednn";
    const LoadedConfig again = parse(to_yaml(odd));
    EXPECT_EQ(again.diagnostics.text(), "");
    EXPECT_TRUE(again.config == odd) << to_yaml(odd) << "----\n" << to_yaml(again.config);
    for (const char* path : {"null", "~",  "1e3", "0x10", "-",   " lead", "trail ", "äöü",
                             "a\nb", "'",  "[x]", "{x}",  "yes", "No",    ".5",     "*x",
                             "&x",   "!x", "%x",  "@x",   "`x",  "a: b",  "\x7f",   "2001-01-01"}) {
        Config one;
        one.run.out = path;
        EXPECT_EQ(parse(to_yaml(one)).config.run.out, path);
    }
}

TEST(Config, OverridesTakeTheSameKeys) {
    const LoadedConfig loaded =
        parse("optimizer: {lr: 1e-3}\ntrain: {steps: 9}\n",
              {"optimizer.lr=5e-4", "optimizer.schedule.warmup=3", "model.moe.router.normalize=true",
               "optimizer.betas=[0.8, 0.9]", "run.name=x", "run.name=y", "optimizer.clip=none"});
    EXPECT_EQ(loaded.diagnostics.text(), "");
    EXPECT_EQ(loaded.config.optimizer.lr, 5e-4);
    EXPECT_EQ(loaded.config.optimizer.schedule.warmup, 3);
    EXPECT_EQ(loaded.config.train.steps, 9);
    EXPECT_EQ(loaded.config.model.moe.router.normalize, true);
    EXPECT_EQ(loaded.config.optimizer.betas, (std::vector<double>{0.8, 0.9}));
    EXPECT_EQ(loaded.config.run.name, "y") << "the last one counts";
    EXPECT_EQ(loaded.config.optimizer.clip, std::nullopt);
}

TEST(Config, MistakesInOverridesNameThem) {
    expect_one(parse("", {"model.widht=3"}), "--set model.widht=3", "model.widht", "no key", "'width'");
    expect_one(parse("", {"train.steps"}), "--set train.steps", "", "key=value");
    expect_one(parse("", {"=3"}), "--set =3", "", "key=value");
    expect_one(parse("", {"train=3"}), "--set train=3", "train", "not a mapping");
    expect_one(parse("", {"train.steps.x=3"}), "--set train.steps.x=3", "train.steps", "a mapping");
    expect_one(parse("", {"optimizer.betas=[0.9"}), "--set optimizer.betas=[0.9", "", "unreadable");
    expect_one(parse("", {"train..steps=3"}), "--set train..steps=3", "train.", "no key");
}

TEST(Config, Ranges) {
    const std::vector<std::pair<const char*, Words>> bad{
        {"parallel.expert", {"0", "-1", "1.5", "x", "none"}},
        {"parallel.zero", {"2", "-1"}},
        {"parallel.receive_budget", {"0", "-1", "nan", ".nan", "1e7"}},
        {"parallel.timeout_seconds", {"0", ".inf"}},
        {"task.data.seq_len", {"0", "1e3x", "99999999999999999999", "[1]", "{a: 1}", "~"}},
        {"task.data.validation", {"1", "-0.1", ".nan"}},
        {"model.norm_eps", {"-1e-9", "2"}},
        {"model.tie_embeddings", {"1", "maybe"}},
        {"model.clip_qkv", {"0", "auto"}},
        {"model.moe.router.normalize", {"perhaps"}},
        {"optimizer.lr", {"-1", ".nan", ".inf"}},
        {"optimizer.betas", {"[0.9]", "[0.9, 1]", "[0.9, -0.1]", "0.9", "[0.9, .nan]", "[0.9, 0.9, 0.9]"}},
        {"optimizer.schedule.floor", {"1.1", "-0.1"}},
        {"train.steps", {"-1"}},
        {"train.micro_sequences", {"0"}},
        {"generalization.delta", {"0", "1"}},
        {"metrics.sinks", {"console", "[consol]"}},
        {"run.seed", {"-1", "0.5"}},
        {"run.name", {"a/b", "..", "''", ".hidden"}},
    };
    for (const auto& [key, values] : bad) {
        for (const std::string& value : values) {
            const std::string text = std::string(key) + "=" + value;
            SCOPED_TRACE(text);
            expect_one(parse("", {text}), "--set " + text, key, "");
        }
    }
}

TEST(Config, WhatIsTooLargeIsToldTheLimit) {
    expect_one(parse("run: {seed: 9007199254740993}\n"), "c.yaml:1", "run.seed", "out of range",
               "at most 1000000000000000");
}

TEST(Config, ChecksAcrossFields) {
    expect_one(parse("model: {width: 100, heads: 3, kv_heads: 3}\n"), "c.yaml:1", "model.heads",
               "do not divide");
    expect_one(parse("model:\n  kv_heads: 3\n"), "c.yaml:2", "model.kv_heads", "do not divide 4 heads");
    expect_one(parse("model:\n  head_dim: 5\n"), "c.yaml:2", "model.head_dim", "rotated in pairs");
    expect_one(parse("model:\n  moe: {top_k: 9}\n"), "c.yaml:2", "model.moe.top_k", "9 of 8 experts", "8");
    expect_one(parse("model: {moe: {top_k: 1, router: {normalize: true}}}\n"), "c.yaml:1",
               "model.moe.router.normalize", "gradient is zero");
    expect_one(parse("model: {moe: {top_k: 1, router: {score: softmax_over_top_k}}}\n"), "c.yaml:1",
               "model.moe.router.score", "gradient is zero");
    EXPECT_EQ(parse("model: {moe: {top_k: 1}}\n").diagnostics.text(), "")
        << "auto does not normalise one expert";
    expect_one(parse("model: {moe: {every: 5}}\n"), "c.yaml:1", "model.moe.every", "would have experts");
    EXPECT_EQ(parse("model: {moe: {experts: 0}}\n").diagnostics.text(), "") << "a dense model";
    expect_one(parse("model: {moe: {experts: 0}}\nparallel: {expert: 2}\n"), "c.yaml:2", "parallel.expert",
               "a dense model");
    expect_one(parse("parallel: {expert: 3}\n"), "c.yaml:1", "parallel.expert",
               "3 ranks cannot share 8 experts");
    expect_one(parse("parallel:\n  expert_tensor: 3\n"), "c.yaml:2", "parallel.expert_tensor",
               "3 ranks cannot share experts of width 256 evenly", "a divisor of model.moe.hidden");
    EXPECT_EQ(parse("parallel: {expert_tensor: 3}\nmodel: {moe: {hidden: 96}}\n").diagnostics.text(), "");
    expect_one(parse("model: {moe: {experts: 0}}\nparallel: {expert_tensor: 2}\n"), "c.yaml:2",
               "parallel.expert_tensor", "a dense model");
    expect_one(parse("train: {steps: 20}\n"), "c.yaml:1", "optimizer.schedule.warmup", "50 steps of warm-up");
}

TEST(Config, WhatCannotBeTrainedMayBeEvaluated) {
    const std::string text = "model: {moe: {top_k: 1, router: {normalize: true}}}\n";
    EXPECT_NE(parse_config(text, "c.yaml").diagnostics.text(), "");
    EXPECT_EQ(parse_config(text, "c.yaml", {}, Purpose::inference).diagnostics.text(), "");
}

TEST(Config, WhatThisVersionLacksIsRefused) {
    for (const char* text : {"parallel.tensor=2", "parallel.pipeline=2", "parallel.context=2"}) {
        const std::string key = std::string(text).substr(0, std::string(text).find('='));
        SCOPED_TRACE(text);
        expect_one(parse("", {text}), std::string("--set ") + text, key, "not in this version", "it has ");
    }
}

TEST(Config, DuplicateAndUnknownKeys) {
    expect_one(parse("train:\n  steps: 60\n  log_every: 1\n  steps: 70\n"), "c.yaml:4", "train.steps",
               "given twice");
    expect_one(parse("modle: {}\n"), "c.yaml:1", "modle", "no key", "did you mean 'model'?");
    expect_one(parse("run:\n  zzzzzzzzz: 1\n"), "c.yaml:2", "run.zzzzzzzzz", "no key",
               "known are: name, seed");
    expect_one(parse("run:\n  [a, b]: 1\n"), "c.yaml:2", "run.a list", "no key");
    expect_one(parse("run: [1, 2]\n"), "c.yaml:1", "run", "a list is not a mapping");
    expect_one(parse("just words\n"), "c.yaml:1", "", "is not a mapping");
}

TEST(Config, WhatIsNotYamlNamesTheLine) {
    const LoadedConfig broken = parse("run:\n  name: x\n model: {\n");
    ASSERT_FALSE(broken.diagnostics.empty());
    EXPECT_THAT(broken.diagnostics.list().front().where, testing::MatchesRegex("c\\.yaml:[34]"));
    EXPECT_THAT(broken.diagnostics.list().front().message, HasSubstr("is not YAML"));
    EXPECT_FALSE(parse("a: 1\n---\nb: 2\n").diagnostics.empty());
    EXPECT_FALSE(parse("run: *nowhere\n").diagnostics.empty());
}

TEST(Config, HostileInputIsAnErrorAndNoCrash) {
    std::string garbage;
    for (int i = 0; i < 4096; ++i) garbage += static_cast<char>(i * 167 % 256);
    EXPECT_FALSE(parse(garbage).diagnostics.empty());
    EXPECT_FALSE(parse(std::string("\0\0\0\0", 4)).diagnostics.empty());
    for (const char bracket : {'[', '{'}) {
        EXPECT_FALSE(parse(std::string(200000, bracket)).diagnostics.empty()) << bracket;
        EXPECT_FALSE(parse("", {"run.name=" + std::string(200000, bracket)}).diagnostics.empty()) << bracket;
    }
    std::string indented;
    for (int i = 0; i < 3000; ++i) indented += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
    EXPECT_FALSE(parse(indented).diagnostics.empty());
    EXPECT_FALSE(parse("", {std::string(100000, '.') + "=1"}).diagnostics.empty());
}

TEST(Config, YamlThatAnchorsMakeEndlessIsRefused) {
    EXPECT_THAT(parse("run: &a\n  x: *a\n").diagnostics.text(),
                HasSubstr("nests deeper than 64 levels; write the values out, without anchors"));
    std::string doubling = "a0: &a0 [1, 2]\n", chain = "junk:\n- &a0 [1]\n";
    for (int i = 1; i < 62; ++i) {
        doubling += fmt::format("a{0}: &a{0} [*a{1}, *a{1}]\n", i, i - 1);
        chain += fmt::format("- &a{} [*a{}]\n", i, i - 1);
    }
    EXPECT_THAT(parse(doubling).diagnostics.text(), HasSubstr("has more than 100000 values"));
    EXPECT_THAT(parse(chain).diagnostics.text(), HasSubstr("junk: is no key"));
    EXPECT_THAT(parse(chain + "- [[*a61]]\n").diagnostics.text(), HasSubstr("c.yaml:2: nests deeper"));
    EXPECT_EQ(parse("run: {seed: &s 3}\ntask: {data: {split_seed: *s}}\n").config.run.seed, 3);
}

TEST(Config, YamlThatBeginsWithNoValueEnds) {  // yaml-cpp finds documents without end in it
    for (const char* text : {",9], k1: 3\n", ", a: 1", ","})
        EXPECT_THAT(parse(text).diagnostics.text(),
                    HasSubstr("c.yaml:1: is not YAML: no value begins like this"))
            << text;
    EXPECT_THAT(parse("run: {seed: 3}\n---\nrun: {seed: 4}\n").diagnostics.text(),
                HasSubstr("holds several YAML documents; keep one"));
    EXPECT_EQ(parse("---\nrun: {seed: 4}\n...\n").config.run.seed, 4);
    EXPECT_EQ(parse("# nothing\n").diagnostics.text(), "");
}

TEST(Config, FilesThatCannotBeRead) {
    const ScratchFolder scratch;
    const auto message = [](const std::string& path) { return load_config(path).diagnostics.text(); };
    EXPECT_THAT(message(scratch / "none.yaml"), HasSubstr(scratch / "none.yaml: no such file; "));
    EXPECT_THAT(message(scratch.path()), HasSubstr("is a folder"));
    write_text(scratch / "huge.yaml", std::string((1 << 20) + 1, '#'));
    EXPECT_THAT(message(scratch / "huge.yaml"), HasSubstr("larger than 1 MiB"));
    write_text(scratch / "good.yaml", "run: {name: good}\n");
    EXPECT_EQ(message(scratch / "good.yaml"), "");
    int shipped = 0;
    for (const auto& entry : std::filesystem::directory_iterator(MOESAIC_SOURCE_DIR "/configs")) {
        if (entry.path().extension() != ".yaml") continue;
        EXPECT_EQ(message(entry.path().string()), "");
        ++shipped;
    }
    EXPECT_GE(shipped, 3);
}

TEST(Config, ReferenceListsEveryKey) {
    const std::string table = config_reference();
    for (const auto& [key, value] : flatten(Config{})) {
        EXPECT_THAT(table, HasSubstr("| `" + key + "` | `" + value + "` | "));
    }
}

TEST(Config, NearestName) {
    EXPECT_EQ(nearest_name("widht", {"heads", "width"}), "width");
    EXPECT_EQ(nearest_name("qqqqqq", {"heads", "width"}), "");
    EXPECT_EQ(nearest_name(std::string(10000, 'w'), {"width"}), "");
}

}  // namespace
}  // namespace moesaic
