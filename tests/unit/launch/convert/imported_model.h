// Models that transformers wrote, and what ours says of the same tokens.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "comm/self_communicator.h"
#include "launch/commands/commands.h"
#include "launch/logits.h"
#include "launch/run_setup.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/data/npy.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {

[[nodiscard]] inline std::string fixture_folder(const std::string& family) {
    return std::string(MOESAIC_SOURCE_DIR) + "/tests/reference/fixtures/huggingface/" + family;
}

/// A scratch folder with the commands of `convert` on it; all paths are relative to it.
class Converter {
  public:
    [[nodiscard]] std::string path(const std::string& name) const { return scratch_ / name; }
    /// A copy of a fixture's folder, to be damaged.
    void copy(const std::string& family, const std::string& to) const {
        std::filesystem::copy(fixture_folder(family), path(to), std::filesystem::copy_options::recursive);
    }
    int import_model(const std::string& source, const std::string& run,
                     std::vector<std::string> sets = {}) const {
        return convert_import_command({source, path(run), std::move(sets)});
    }
    int export_model(const std::string& run, const std::string& out, bool brain_float = false,
                     long shard_bytes = 1 << 30) const {
        return convert_export_command({path(run), path(out), brain_float, shard_bytes});
    }
    /// Float32 [sequences, tokens, vocabulary], flattened.
    [[nodiscard]] std::vector<float> logits(const std::string& run, const TokenRows& tokens,
                                            const std::vector<std::string>& sets = {}) const {
        write_npy(path("tokens.npy"), tokens.ids, {tokens.rows, tokens.columns});
        const std::string checkpoint = resolve_checkpoint(path(run));
        SelfCommunicator world;
        write_logits(checkpoint_config(checkpoint, sets), checkpoint, path("tokens.npy"), path("logits.npy"),
                     world);
        const std::string bytes = read_text(path("logits.npy")).substr(128);
        std::vector<float> values(bytes.size() / sizeof(float));
        std::memcpy(values.data(), bytes.data(), bytes.size());
        return values;
    }

  private:
    ScratchFolder scratch_;
};

struct ExpectedLogits {
    TokenRows tokens;
    std::vector<float> logits;
};
[[nodiscard]] inline ExpectedLogits expected_logits(const std::string& family) {
    const SafetensorsFile file = SafetensorsFile::open(fixture_folder(family) + ".safetensors");
    const ConstTensorView tokens = file.at("tokens").view(), logits = file.at("logits").view();
    ExpectedLogits expected;
    expected.tokens = {
        tokens.shape[0], tokens.shape[1], {tokens.as<i32>(), tokens.as<i32>() + tokens.elements()}};
    expected.logits.assign(logits.as<float>(), logits.as<float>() + logits.elements());
    return expected;
}

/// The largest difference over the largest number.
[[nodiscard]] inline double relative_difference(const std::vector<float>& left,
                                                const std::vector<float>& right) {
    if (left.size() != right.size() || left.empty()) return INFINITY;
    double difference = 0, largest = 0;
    for (std::size_t i = 0; i < left.size(); ++i) {
        if (!std::isfinite(left[i]) || !std::isfinite(right[i])) return INFINITY;
        difference = std::max(difference, std::abs(static_cast<double>(left[i]) - right[i]));
        largest = std::max(largest, std::abs(static_cast<double>(right[i])));
    }
    return difference / largest;
}

struct TensorBytes {
    std::string dtype;
    std::vector<i64> shape;
    std::string bytes;
    bool operator==(const TensorBytes&) const = default;
};
/// Every tensor in a folder's safetensors files.
[[nodiscard]] inline std::map<std::string, TensorBytes> tensors_in(const std::string& folder) {
    std::map<std::string, TensorBytes> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".safetensors") continue;
        const SafetensorsFile file = SafetensorsFile::open(entry.path());
        for (const SafetensorsEntry& one : file.entries())
            found[one.name] = {
                one.dtype_name,
                one.shape,
                {reinterpret_cast<const char*>(one.data), static_cast<std::size_t>(one.bytes)}};
    }
    return found;
}

/// What a command refuses with, or empty.
template <class Command>
[[nodiscard]] std::string refusal_of(const Command& command) {
    try {
        (void)command();
    } catch (const UserError& error) {
        return error.what();
    }
    return "";
}

}  // namespace moesaic
