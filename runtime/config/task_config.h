// The section task: what is learnt, and from which data.
#pragma once

#include <optional>
#include <vector>

#include "runtime/config/limits.h"

namespace moesaic {

/// In a source of a blend: what `task.data` says under the same key.
inline constexpr const char* kInherit = "inherit";

/// One of `task.data.sources`.
struct SourceConfig {
    std::string path, name = "auto";
    double weight = 1;
    std::string format = kInherit, text_key = kInherit, token_type = kInherit, end_of_document = kInherit;
    bool operator==(const SourceConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("path", path, "File, folder or Megatron prefix of this source");
        v.value("weight", weight, {0, 1e12},
                "Share of the sequences, relative to the other sources; 0: left out");
        v.value("name", name, "Name in records; auto: the last part of the path");
        v.choice("format", format,
                 {kInherit, "auto", "text", "jsonl", "bin", "megatron", "npy", "csv", "idx"},
                 "Format of this source");
        v.value("text_key", text_key, "As task.data.text_key");
        v.choice("token_type", token_type, {kInherit, "auto", "uint16", "uint32"}, "As task.data.token_type");
        v.value("end_of_document", end_of_document, "As task.data.end_of_document");
    }
};

struct DataConfig {
    std::string path = "configs/data/quad";
    std::vector<SourceConfig> sources;
    std::string format = "auto", tokenizer = "bytes";
    std::optional<i64> vocabulary;
    std::string text_key = "text", token_type = "auto", end_of_document = "auto";
    bool document_mask = false;
    i64 seq_len = 256;
    double validation = 0.1, training_share = 1;
    // Tables, for classification and regression.
    std::string target = "last", features = "all", labels = "auto";
    bool standardize = true, random_labels = false;
    i64 split_seed = 1;
    // Generated examples.
    std::string function = "none";
    i64 dimensions = 2;
    std::optional<i64> samples;
    double noise = 0;
    bool operator==(const DataConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value_unless(!sources.empty() || function != "none", "path", path,
                       "File, folder or Megatron prefix of training data");
        v.sections("sources", sources, "Blend of several sources, instead of path");
        v.choice("format", format, {"auto", "text", "jsonl", "bin", "megatron", "npy", "csv", "idx"},
                 "Format of the data; auto: by ending and header, file by file");
        v.value("tokenizer", tokenizer,
                "bytes, a tokenizer.json, merges file or folder; none for token ids alone");
        v.value("vocabulary", vocabulary, "auto", kSize, "Number of token ids; auto: the tokenizer's");
        v.value("text_key", text_key, "Member of a JSON line that is the document's text");
        v.choice("token_type", token_type, {"auto", "uint16", "uint32"},
                 "Ids of a .bin without header; auto: uint16");
        v.value("end_of_document", end_of_document,
                "Id that ends a document: a number, none, or auto: the tokenizer's (bytes: 0)");
        v.value("document_mask", document_mask, "No attention and no target across documents of a sequence");
        v.value("seq_len", seq_len, kSize, "Tokens of one sequence");
        v.value("validation", validation, {0, 0.99},
                "Share that is held out: of each text at its end, of a table at random");
        v.value("training_share", training_share, {1e-6, 1},
                "Training keeps to this share of its data, the first of the first epoch; for priors of bound "
                "--pac-bayes");
        v.value("target", target, "CSV: column of the target, by name or number from 1, or last");
        v.value("features", features, "CSV: columns of the features, separated by commas, or all others");
        v.value("labels", labels, "File of the targets of .npy and IDX features; auto: beside them");
        v.value("standardize", standardize,
                "Features, and values to be learnt, get mean 0 and variance 1 over the training part");
        v.value("random_labels", random_labels,
                "Probe of what the model can fit by heart: the training examples' classes are shuffled among "
                "them");
        v.value("split_seed", split_seed, kNotNegative, "Which rows of a table are held out");
        v.choice("function", function, {"none", "ackley", "rastrigin", "piecewise", "teacher"},
                 "Examples of this function instead of a file's; teacher: classification, else regression");
        v.value("dimensions", dimensions, {1, 4096}, "Inputs of the function");
        v.value("samples", samples, "auto", {1, 1e12},
                "Generated examples; auto: 10000 of a function, 20 million of sraven and skills");
        v.value("noise", noise, kNotNegative,
                "Standard deviation of the noise on a function's values; teacher: share of wrong labels");
    }
};

/// Symbolic Raven matrices (Schug et al., "Attention as a hypernetwork", arXiv 2406.05816, section 4).
struct SravenConfig {
    i64 features = 4, values = 8;
    double held_out = 0.25;
    i64 test = 1024;
    bool operator==(const SravenConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("features", features, {1, 8}, "M: features of a panel, each with a rule of its own");
        v.value("values", values, {3, 1024}, "F: values of a feature");
        v.value("held_out", held_out, {0, 0.9},
                "Share of the combinations of rules that training never sees");
        v.value("test", test, kPositive, "Test instances of seen combinations, and as many of held-out ones");
    }
};

/// Primitive skills composed over topics: the offline analogue of SKILL-MIX (arXiv 2310.17567).
struct SkillsConfig {
    i64 skills = 12, combined = 3, topics = 8, values = 8, length = 4;
    double held_out = 0.25;
    i64 test = 1024;
    bool operator==(const SkillsConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.value("skills", skills, {2, 64}, "Primitive skills");
        v.value("combined", combined, {1, 8}, "k: skills that an instance applies one after the other");
        v.value("topics", topics, {1, 1024}, "Topics; each gives every skill a parameter of its own");
        v.value("values", values, {3, 1024}, "Values of a symbol");
        v.value("length", length, {2, 64}, "Symbols that the skills are applied to");
        v.value("held_out", held_out, {0, 0.9},
                "Share of the combinations of skills that training never sees");
        v.value("test", test, kPositive, "Test instances of seen combinations, and as many of held-out ones");
    }
};

struct TaskConfig {
    std::string kind = "lm";
    DataConfig data;
    SravenConfig sraven;
    SkillsConfig skills;
    bool operator==(const TaskConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choice("kind", kind, {"lm", "classification", "regression", "sraven", "skills"},
                 "What is learnt: the next token, a class, a value, Raven matrices, composed skills");
        v.section("data", data);
        v.section("sraven", sraven);
        v.section("skills", skills);
    }
};

}  // namespace moesaic
