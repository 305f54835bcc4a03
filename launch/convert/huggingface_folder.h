// The weights of a Hugging Face folder: model.safetensors, or the shards that its index names.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

/// Every tensor of the folder, mapped, not read. What is wrong with the files (missing, damaged, named by the
/// index and not there, tensors held twice) is one UserError.
class HuggingFaceFolder {
  public:
    explicit HuggingFaceFolder(std::string folder);

    /// Null where there is no such tensor.
    [[nodiscard]] const SafetensorsEntry* find(const std::string& name) const;
    [[nodiscard]] std::vector<std::string> names() const;
    [[nodiscard]] std::size_t size() const { return tensors_.size(); }
    [[nodiscard]] const std::string& path() const { return folder_; }

  private:
    std::string folder_;
    std::vector<SafetensorsFile> files_;
    std::unordered_map<std::string, const SafetensorsEntry*> tensors_;
    std::vector<std::string> problems_;

    void open_index(const std::string& index);
    void open_file(const std::string& name);
};

/// The path of a regular file `name` of the folder, if it is one and lies there: links may lead to elsewhere
/// in the folder, and to the blobs of Hugging Face's cache, of which it may be a snapshot. Otherwise empty,
/// and `why` says why.
[[nodiscard]] std::optional<std::string> inner_file(const std::string& folder, const std::string& name,
                                                    std::string& why);

}  // namespace moesaic
