// Where the weights of a model come from: a Hugging Face folder, or a checkpoint of ours.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "launch/convert/families.h"
#include "layers/model_spec.h"
#include "runtime/checkpoint/tensor_files.h"
#include "runtime/config/config.h"
#include "runtime/parameter.h"

namespace moesaic {

/// A model that lies on disk, by our names. Tensors stay mapped as long as this lives.
class WeightSource {
  public:
    /// `path` is a folder with a config.json, or a checkpoint or run of ours.
    static WeightSource open(const std::string& path);
    static WeightSource open_huggingface(const std::string& folder);
    static WeightSource open_checkpoint(const std::string& checkpoint_or_run);

    /// As the weights were made; model.vocabulary is set. From a Hugging Face folder all but `model` and the
    /// length of a sequence are our defaults.
    Config config;
    std::string description;            ///< e.g. "LlamaForCausalLM of DIR"
    std::vector<std::string> warnings;  ///< what was ignored
    std::string folder;                 ///< of Hugging Face; empty for a checkpoint of ours
    std::string tokenizer_fingerprint;  ///< of a checkpoint of ours

    /// The tensor for one of our names; null where there is none. A tied head is the embedding table.
    [[nodiscard]] const SafetensorsEntry* find(const std::string& name) const { return find_(name); }
    /// What the source calls that tensor.
    [[nodiscard]] std::string name_of(const std::string& ours) const { return name_(ours); }
    /// Compares with the model that `spec` describes; a UserError lists tensors that are missing, too many,
    /// or of another shape or a type that we do not read.
    void require(const ModelSpec& spec, std::span<const Parameter> parameters) const;
    /// Refuses a description of far more tensors than there are, before anybody declares them.
    void require_plausible(const ModelSpec& spec) const;

  private:
    std::shared_ptr<void> files_;
    std::function<const SafetensorsEntry*(const std::string&)> find_;
    std::function<std::string(const std::string&)> name_;
    std::vector<std::string> names_;  // the source's own
};

/// The extents of a parameter, as files list them.
[[nodiscard]] std::vector<i64> extents_of(const Shape& shape);

}  // namespace moesaic
