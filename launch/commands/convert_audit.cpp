// moesaic convert audit: does a checkpoint hold what it says, and all that its model needs?
#include <cmath>
#include <cstdio>
#include <map>

#include "launch/commands/commands.h"
#include "launch/convert/declared_parameters.h"
#include "launch/convert/weight_source.h"
#include "launch/rank_runtime.h"
#include "launch/run_setup.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/checkpoint_reader.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

struct Audit {
    i64 step = 0;
    std::size_t shards = 0, tensors = 0, moments = 0;
    i64 bytes = 0;
    std::vector<std::string> problems, notes;
};

/// Elements that are not finite, and second moments below zero.
void audit_values(const std::string& name, const SafetensorsEntry& entry, Audit& audit) {
    const i64 elements = entry.elements();
    const bool square = name.ends_with(kSecondMomentSuffix);
    i64 not_finite = 0, negative = 0;
    for_each_piece(entry, [&](i64, std::span<const float> values) {
        for (const float value : values) {
            if (!std::isfinite(value)) ++not_finite;
            if (square && value < 0) ++negative;
        }
    });
    if (not_finite > 0)
        audit.problems.push_back(
            fmt::format("{}: {} of {} values are not finite", name, not_finite, elements));
    if (negative > 0)
        audit.problems.push_back(
            fmt::format("{}: {} of {} mean squares are negative", name, negative, elements));
}

/// Experts of a layer that are the same bits: right after upcycling, and nowhere else.
void note_identical_experts(CheckpointReader& reader, const std::vector<Parameter>& parameters,
                            Audit& audit) {
    std::map<std::pair<int, u64>, i64> first_with;
    for (const Parameter& parameter : parameters) {
        if (parameter.expert < 0 || !parameter.name.ends_with("gate_proj.weight") ||
            !reader.contains(parameter.name))
            continue;
        const SafetensorsEntry& entry = reader.entry(parameter.name);
        const u64 sum = checksum_of(entry.data, static_cast<std::size_t>(entry.bytes));
        const auto [known, added] = first_with.emplace(std::pair(parameter.layer, sum), parameter.expert);
        if (!added)
            audit.notes.push_back(fmt::format("layer {}: experts {} and {} are the same", parameter.layer,
                                              known->second, parameter.expert));
    }
}

void audit_tensors(CheckpointReader& reader, Audit& audit) {
    const Manifest& manifest = reader.manifest();
    const Config config = checkpoint_config(reader.folder(), {});
    const auto table = manifest.tensors.find("model.embed_tokens.weight");
    const i64 rows =
        table == manifest.tensors.end() || table->second.shape.empty() ? 1 : table->second.shape[0];
    const ModelSpec spec = resolve_model(config, rows);
    if (count_declared(spec) > 10 * static_cast<double>(manifest.tensors.size()) + 1000) {
        audit.problems.push_back(fmt::format("the configuration describes {:.0f} tensors, the manifest {}",
                                             count_declared(spec), manifest.tensors.size()));
        return;
    }
    const std::vector<Parameter> parameters = declared_parameters(spec);
    std::map<std::string, std::vector<i64>> expected;
    for (const Parameter& parameter : parameters) expected[parameter.name] = extents_of(parameter.shape);
    bool any_moment = manifest.step > 0;
    for (const auto& [name, record] : manifest.tensors) any_moment |= name.ends_with(kFirstMomentSuffix);
    for (const Parameter& parameter : parameters) {
        if (!any_moment) break;
        for (const std::string_view suffix : {kFirstMomentSuffix, kSecondMomentSuffix})
            expected[parameter.name + std::string(suffix)] = extents_of(parameter.shape);
    }
    for (const auto& [name, shape] : declared_buffers(spec)) expected[name] = extents_of(shape);
    for (const auto& [name, shape] : expected) {
        const auto found = manifest.tensors.find(name);
        if (found == manifest.tensors.end()) {
            audit.problems.push_back(name + ": is missing");
        } else if (found->second.shape != shape) {
            audit.problems.push_back(fmt::format("{}: has shape {}, the model needs another", name,
                                                 reader.entry(name).shape_text()));
        }
    }
    for (const auto& [name, record] : manifest.tensors) {
        if (!expected.contains(name)) audit.problems.push_back(name + ": belongs to no part of the model");
        if (is_floating_dtype(reader.entry(name).dtype_name)) audit_values(name, reader.entry(name), audit);
        audit.moments += name.ends_with(kFirstMomentSuffix) || name.ends_with(kSecondMomentSuffix) ? 1 : 0;
    }
    note_identical_experts(reader, parameters, audit);
}

void print(const Audit& audit, const std::string& checkpoint, bool json) {
    const bool ok = audit.problems.empty();
    if (json) {
        JsonLine line;
        line.field("checkpoint", checkpoint).field("ok", ok).field("step", audit.step);
        line.field("shards", static_cast<i64>(audit.shards)).field("bytes", audit.bytes);
        line.field("tensors", static_cast<i64>(audit.tensors))
            .field("moments", static_cast<i64>(audit.moments));
        line.field("problems", audit.problems).field("notes", audit.notes);
        std::printf("%s\n", line.text().c_str());
        return;
    }
    constexpr std::size_t kShown = 20;
    std::printf("%s\n  step %lld, %zu shards, %lld bytes, %zu tensors (%zu of them moments)\n",
                checkpoint.c_str(), static_cast<long long>(audit.step), audit.shards,
                static_cast<long long>(audit.bytes), audit.tensors, audit.moments);
    for (const auto& [list, word] : {std::pair(&audit.problems, "WRONG"), std::pair(&audit.notes, "note ")}) {
        for (std::size_t i = 0; i < list->size() && i < kShown; ++i)
            std::printf("  %s %s\n", word, (*list)[i].c_str());
        if (list->size() > kShown) std::printf("  ... and %zu more\n", list->size() - kShown);
    }
    std::printf("%s\n", ok ? "ok: complete, undamaged, every value finite" : "NOT ok");
}

}  // namespace

int convert_audit_command(const ConvertAuditOptions& options) {
    const std::string checkpoint = resolve_checkpoint(options.checkpoint);
    Audit audit;
    try {
        CheckpointReader reader(checkpoint, ShardCheck::sizes);
        audit.step = reader.manifest().step;
        audit.shards = reader.manifest().shards.size();
        audit.tensors = reader.manifest().tensors.size();
        for (std::size_t shard = 0; shard < audit.shards; ++shard) {
            audit.bytes += reader.manifest().shards[shard].bytes;
            try {
                reader.verify_shard(shard);
            } catch (const Error& error) {
                audit.problems.emplace_back(error.what());
            }
        }
        if (audit.problems.empty()) audit_tensors(reader, audit);
    } catch (const Error& error) {
        audit.problems.emplace_back(error.what());
    }
    print(audit, checkpoint, options.json);
    return audit.problems.empty() ? 0 : 3;
}

}  // namespace moesaic
