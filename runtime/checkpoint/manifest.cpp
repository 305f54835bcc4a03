#include "runtime/checkpoint/manifest.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

namespace {

using nlohmann::json;

constexpr std::string_view kChecksumPrefix = "xxh64:";
constexpr int kDeepest = 16;  // and to write JSON again takes stack for every level

std::string checksum_text(u64 checksum) {
    return fmt::format("{}{:016x}", kChecksumPrefix, checksum);
}

u64 checksum_from(const std::string& text) {
    u64 checksum = 0;
    const char* begin = text.data() + std::min(text.size(), kChecksumPrefix.size());
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(begin, end, checksum, 16);
    if (!text.starts_with(kChecksumPrefix) || end - begin != 16 || parsed.ptr != end)
        throw Error(fmt::format("\"{}\" is not a checksum", text));
    return checksum;
}

json to_json(const Manifest& manifest) {
    json shards = json::array();
    for (const ShardRecord& shard : manifest.shards)
        shards.push_back(
            {{"file", shard.file}, {"bytes", shard.bytes}, {"checksum", checksum_text(shard.checksum)}});
    json tensors = json::object();
    for (const auto& [name, tensor] : manifest.tensors)
        tensors[name] = {{"shard", tensor.shard},
                         {"dtype", detail::safetensors_name_of(tensor.dtype)},
                         {"shape", tensor.shape}};
    json document = {{"format_version", Manifest::kFormatVersion},
                     {"step", manifest.step},
                     {"world_size", manifest.world_size},
                     {"expert_parallel", manifest.expert_parallel},
                     {"tokens", manifest.tokens},
                     {"sampler_cursor", manifest.sampler_cursor},
                     {"config", manifest.config},
                     {"shards", std::move(shards)},
                     {"tensors", std::move(tensors)}};
    if (!manifest.tokenizer.empty()) document["tokenizer"] = manifest.tokenizer;
    if (!manifest.observers.empty()) document["observers"] = manifest.observers;
    return document;
}

/// nlohmann's parser keeps the last of several equal keys; here they are an error.
json parse_without_duplicates(std::string_view text) {
    std::vector<std::set<std::string>> keys;
    return json::parse(text.begin(), text.end(), [&](int depth, json::parse_event_t event, json& value) {
        if (depth > kDeepest) throw Error(fmt::format("it nests deeper than {} levels", kDeepest));
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
            throw Error(fmt::format("{} occurs twice", detail::shown_name(value.get<std::string>())));
        return true;
    });
}

/// A whole number that is at least `minimum`; nlohmann itself would turn 1.5 and -1 into something.
i64 whole(const json& value, std::string_view what, i64 minimum = 0) {
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<u64>() > static_cast<u64>(INT64_MAX)) ||
        value.get<i64>() < minimum)
        throw Error(fmt::format("{} should be a whole number of at least {}", what, minimum));
    return value.get<i64>();
}

ShardRecord shard_from(const json& value) {
    ShardRecord shard;
    shard.file = value.at("file").get<std::string>();
    shard.bytes = whole(value.at("bytes"), "a shard's bytes");
    shard.checksum = checksum_from(value.at("checksum").get<std::string>());
    if (shard.file.empty() || shard.file.starts_with('.') || shard.file.find('/') != std::string::npos)
        throw Error(
            fmt::format("{} is not the name of a file in this folder", detail::shown_name(shard.file)));
    return shard;
}

TensorRecord tensor_from(const std::string& name, const json& value, std::size_t shards) {
    const std::string shown = detail::shown_name(name);
    TensorRecord tensor;
    tensor.shard = static_cast<std::size_t>(whole(value.at("shard"), shown + "'s shard"));
    if (tensor.shard >= shards)
        throw Error(fmt::format("{} should be in shard {} of {}", shown, tensor.shard, shards));
    const auto& dtype_name = value.at("dtype").get_ref<const std::string&>();
    const std::optional<DType> dtype = detail::dtype_of_safetensors(dtype_name);
    if (!dtype)
        throw Error(fmt::format("{} has the unknown dtype {}", shown, detail::shown_name(dtype_name)));
    tensor.dtype = *dtype;
    for (const json& extent : value.at("shape")) tensor.shape.push_back(whole(extent, shown + "'s shape"));
    return tensor;
}

Manifest from_json(json document) {
    const i64 version = whole(document.at("format_version"), "format_version", 1);
    if (version != Manifest::kFormatVersion)
        throw Error(fmt::format("it has format version {}; this program reads version {}", version,
                                Manifest::kFormatVersion));
    const u64 expected = checksum_from(document.at("checksum").get<std::string>());
    document.erase("checksum");
    const std::string text = document.dump();
    const u64 found = checksum_of(text.data(), text.size());
    if (found != expected)
        throw Error(fmt::format("its checksum is {}, its contents have {}", checksum_text(expected),
                                checksum_text(found)));
    Manifest manifest;
    manifest.step = whole(document.at("step"), "step");
    manifest.world_size = whole(document.at("world_size"), "world_size", 1);
    manifest.expert_parallel = whole(document.at("expert_parallel"), "expert_parallel", 1);
    manifest.tokens = whole(document.at("tokens"), "tokens");
    manifest.sampler_cursor = whole(document.at("sampler_cursor"), "sampler_cursor");
    manifest.config = document.at("config").get<std::string>();
    if (document.contains("tokenizer")) manifest.tokenizer = document.at("tokenizer").get<std::string>();
    if (document.contains("observers")) document.at("observers").get_to(manifest.observers);
    for (const json& shard : document.at("shards")) manifest.shards.push_back(shard_from(shard));
    for (const auto& [name, tensor] : document.at("tensors").items())
        manifest.tensors.emplace(name, tensor_from(name, tensor, manifest.shards.size()));
    return manifest;
}

}  // namespace

std::string step_folder_name(i64 step) {
    return fmt::format("step-{:08}", step);
}

std::string shard_file_name(i64 shard, i64 shards) {
    return fmt::format("shard-{:05}-of-{:05}.safetensors", shard, shards);
}

void Manifest::add_shard(const std::string& folder, ShardRecord shard) {
    const SafetensorsFile file = SafetensorsFile::open(folder + "/" + shard.file);
    for (const SafetensorsEntry& entry : file.entries()) {
        if (!entry.dtype)
            throw Error(fmt::format("{}: tensor {} has dtype {}, which checkpoints do not hold", file.path(),
                                    detail::shown_name(entry.name), entry.dtype_name));
        const auto [known, added] =
            tensors.emplace(entry.name, TensorRecord{shards.size(), *entry.dtype, entry.shape});
        if (!added)
            throw Error(fmt::format("{}: tensor {} is also in {}", file.path(),
                                    detail::shown_name(entry.name), shards[known->second.shard].file));
    }
    shards.push_back(std::move(shard));
}

void write_manifest(const std::string& folder, const Manifest& manifest) {
    json document = to_json(manifest);
    const std::string text = document.dump();
    document["checksum"] = checksum_text(checksum_of(text.data(), text.size()));
    write_file_atomically(fmt::format("{}/{}", folder, kManifestName), document.dump(1) + "\n");
}

bool has_manifest(const std::string& folder) {
    std::error_code ignored;
    return std::filesystem::is_regular_file(fmt::format("{}/{}", folder, kManifestName), ignored);
}

Manifest read_manifest(const std::string& folder) {
    if (!has_manifest(folder))
        throw UserError(
            fmt::format("{}: the checkpoint is incomplete: it has no {} (the run stopped while it "
                        "was written); use another one",
                        folder, kManifestName));
    const MappedFile file(fmt::format("{}/{}", folder, kManifestName));
    try {
        return from_json(parse_without_duplicates({reinterpret_cast<const char*>(file.data()), file.size()}));
    } catch (const json::exception& error) {
        throw Error(fmt::format("{}: damaged manifest: {}", file.path(), error.what()));
    } catch (const Error& error) {
        throw Error(fmt::format("{}: damaged manifest: {}", file.path(), error.what()));
    }
}

}  // namespace moesaic
