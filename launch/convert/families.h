// The model classes of Hugging Face that Moesaic reads and writes, and what they call our tensors.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace moesaic {

enum class Family : std::uint8_t { mixtral, olmoe, qwen3_moe, llama };

struct FamilyEntry {
    Family family;
    const char* architecture;  ///< the class, as in config.json's `architectures`
    const char* model_type;
};

[[nodiscard]] std::span<const FamilyEntry> family_table();
[[nodiscard]] const FamilyEntry& family_entry(Family family);

/// Their name of one of our parameters. Ours are those of Olmoe, Qwen3Moe and Llama; Mixtral says
/// block_sparse_moe for mlp, and w1, w3, w2 for an expert's gate, up and down projections.
[[nodiscard]] std::string huggingface_name(Family family, std::string name);

}  // namespace moesaic
