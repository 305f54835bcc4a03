// JSON files that others wrote, read with every mistake named by file, line and key.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "runtime/config/config.h"
#include "runtime/config/diagnostics.h"

namespace moesaic {

/// One JSON object. What cannot be read as JSON, names a key twice, nests deeper than any configuration or
/// is larger than any is a UserError. `key` is a name at the top, or "outer.inner". Null counts as absent.
class JsonDocument {
  public:
    explicit JsonDocument(const std::string& path);
    JsonDocument(JsonDocument&&) noexcept;
    ~JsonDocument();

    [[nodiscard]] bool has(const std::string& key);   ///< present, and not null
    [[nodiscard]] bool null(const std::string& key);  ///< present, and null
    // Empty where the key is absent; a value of another type or out of range is a complaint, and empty.
    [[nodiscard]] std::optional<i64> whole(const std::string& key, const Limits& limits);
    [[nodiscard]] std::optional<double> number(const std::string& key, const Limits& limits);
    [[nodiscard]] std::optional<bool> flag(const std::string& key);
    [[nodiscard]] std::optional<std::string> text(const std::string& key);
    [[nodiscard]] std::vector<i64> wholes(const std::string& key);
    [[nodiscard]] std::vector<std::string> texts(const std::string& key);
    /// Whether it is an object, an empty list or an empty text.
    [[nodiscard]] bool object(const std::string& key);
    [[nodiscard]] bool empty(const std::string& key);
    /// Every entry of an object of texts; an entry of another type is a complaint.
    [[nodiscard]] std::map<std::string, std::string> text_map(const std::string& key);
    /// The value as JSON, shortened, for messages.
    [[nodiscard]] std::string shown(const std::string& key);

    /// Keys at the top that no call has named.
    [[nodiscard]] std::vector<std::string> unread() const;
    void complain(const std::string& key, std::string message, std::string hint);
    [[nodiscard]] Diagnostics& diagnostics() { return diagnostics_; }
    [[nodiscard]] const std::string& path() const { return path_; }
    /// "file:line" of the first place where the key stands.
    [[nodiscard]] std::string where(const std::string& key) const;

  private:
    struct Contents;
    std::string path_;
    std::unique_ptr<Contents> contents_;
    std::set<std::string> read_;
    Diagnostics diagnostics_;
};

}  // namespace moesaic
