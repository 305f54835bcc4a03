#include "launch/convert/families.h"

#include <array>
#include <utility>

namespace moesaic {

namespace {

constexpr FamilyEntry kFamilies[] = {
    {Family::mixtral, "MixtralForCausalLM", "mixtral"},
    {Family::olmoe, "OlmoeForCausalLM", "olmoe"},
    {Family::qwen3_moe, "Qwen3MoeForCausalLM", "qwen3_moe"},
    {Family::llama, "LlamaForCausalLM", "llama"},
};

}  // namespace

std::span<const FamilyEntry> family_table() {
    return kFamilies;
}

const FamilyEntry& family_entry(Family family) {
    return kFamilies[static_cast<std::size_t>(family)];
}

std::string huggingface_name(Family family, std::string name) {
    if (family != Family::mixtral) return name;
    constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kWords{
        {{".mlp.", ".block_sparse_moe."},
         {".gate_proj.", ".w1."},
         {".up_proj.", ".w3."},
         {".down_proj.", ".w2."}}};
    for (const auto& [ours, theirs] : kWords) {
        if (const std::size_t at = name.find(ours); at != std::string::npos)
            name.replace(at, ours.size(), theirs);
    }
    return name;
}

}  // namespace moesaic
