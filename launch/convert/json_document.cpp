#include "launch/convert/json_document.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "runtime/base/mapped_file.h"
#include "runtime/checkpoint/safetensors.h"

namespace moesaic {

namespace {

using nlohmann::json;

constexpr std::size_t kLargestFile = std::size_t{256} << 20;  // an index of a million tensors
constexpr int kDeepest = 64;

/// nlohmann's parser keeps the last of several equal keys; here they are a mistake.
json parse_strictly(std::string_view text) {
    std::vector<std::set<std::string>> keys;
    return json::parse(text.begin(), text.end(), [&](int depth, json::parse_event_t event, json& value) {
        if (depth > kDeepest) throw Error(fmt::format("it nests deeper than {} levels", kDeepest));
        if (event == json::parse_event_t::object_start) keys.emplace_back();
        if (event == json::parse_event_t::object_end) keys.pop_back();
        if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
            throw Error(fmt::format("key {} occurs twice", detail::shown_name(value.get<std::string>())));
        return true;
    });
}

std::string allowed(const Limits& limits) {
    return limits.high >= 1e15 ? fmt::format("at least {}", limits.low)
                               : fmt::format("between {} and {}", limits.low, limits.high);
}

long line_at(std::string_view text, std::size_t position) {
    return 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(position), '\n');
}

}  // namespace

struct JsonDocument::Contents {
    MappedFile file;
    json document;

    [[nodiscard]] std::string_view text() const {
        return {reinterpret_cast<const char*>(file.data()), file.size()};
    }
    /// Null where there is no such key.
    [[nodiscard]] const json* find(const std::string& key) const {
        const json* at = &document;
        for (std::size_t begin = 0; begin <= key.size();) {
            const std::size_t end = std::min(key.find('.', begin), key.size());
            if (!at->is_object()) return nullptr;
            const auto found = at->find(key.substr(begin, end - begin));
            if (found == at->end()) return nullptr;
            at = &*found;
            begin = end + 1;
        }
        return at;
    }
};

JsonDocument::JsonDocument(const std::string& path) : path_(path), contents_(std::make_unique<Contents>()) {
    contents_->file = MappedFile(path);
    if (contents_->file.size() > kLargestFile)
        throw UserError(
            fmt::format("{}: has {} bytes, far more than such a file has", path, contents_->file.size()));
    const std::string_view text = contents_->text();
    try {
        contents_->document = parse_strictly(text);
    } catch (const json::parse_error& error) {
        const std::size_t byte = std::min(error.byte > 0 ? error.byte - 1 : 0, text.size());
        throw UserError(fmt::format("{}:{}: is not JSON at byte {} (cut short or damaged?)", path,
                                    line_at(text, byte), byte));
    } catch (const std::exception& error) {
        throw UserError(fmt::format("{}: cannot be read as JSON: {}", path, error.what()));
    }
    if (!contents_->document.is_object()) throw UserError(fmt::format("{}:1: holds no JSON object", path));
}

JsonDocument::JsonDocument(JsonDocument&&) noexcept = default;
JsonDocument::~JsonDocument() = default;

std::string JsonDocument::where(const std::string& key) const {
    const std::string quoted = '"' + key.substr(key.rfind('.') + 1) + '"';
    const std::string_view text = contents_->text();
    const std::size_t at = text.find(quoted);
    return fmt::format("{}:{}", path_, at == std::string_view::npos ? 1 : line_at(text, at));
}

void JsonDocument::complain(const std::string& key, std::string message, std::string hint) {
    diagnostics_.add({where(key), key, std::move(message), std::move(hint)});
}

bool JsonDocument::has(const std::string& key) {
    read_.insert(key.substr(0, key.find('.')));
    const json* value = contents_->find(key);
    return value && !value->is_null();
}

bool JsonDocument::null(const std::string& key) {
    const json* value = contents_->find(key);
    return value && value->is_null();
}

std::string JsonDocument::shown(const std::string& key) {
    constexpr std::size_t kShown = 60;
    const json* value = contents_->find(key);
    if (!value) return "nothing";
    std::string text = value->dump(-1, ' ', true, json::error_handler_t::replace);
    if (text.size() > kShown) text = text.substr(0, kShown) + "...";
    return text;
}

std::optional<i64> JsonDocument::whole(const std::string& key, const Limits& limits) {
    if (!has(key)) return {};
    const json& value = *contents_->find(key);
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() && value.get<u64>() > static_cast<u64>(INT64_MAX)) &&
                      static_cast<double>(value.get<i64>()) >= limits.low &&
                      static_cast<double>(value.get<i64>()) <= limits.high;
    if (fits) return value.get<i64>();
    complain(key, shown(key) + " is no such number", "a whole number, " + allowed(limits));
    return {};
}

std::optional<double> JsonDocument::number(const std::string& key, const Limits& limits) {
    if (!has(key)) return {};
    const json& value = *contents_->find(key);
    if (value.is_number() && value.get<double>() >= limits.low && value.get<double>() <= limits.high)
        return value.get<double>();
    complain(key, shown(key) + " is no such number", "a number, " + allowed(limits));
    return {};
}

std::optional<bool> JsonDocument::flag(const std::string& key) {
    if (!has(key)) return {};
    const json& value = *contents_->find(key);
    if (value.is_boolean()) return value.get<bool>();
    complain(key, shown(key) + " is neither true nor false", "true or false");
    return {};
}

std::optional<std::string> JsonDocument::text(const std::string& key) {
    if (!has(key)) return {};
    const json& value = *contents_->find(key);
    if (value.is_string()) return value.get<std::string>();
    complain(key, shown(key) + " is not a text", "a text in quotes");
    return {};
}

std::vector<i64> JsonDocument::wholes(const std::string& key) {
    if (!has(key)) return {};
    std::vector<i64> values;
    const json& value = *contents_->find(key);
    bool good = value.is_array();
    for (std::size_t i = 0; good && i < value.size(); ++i) {
        good = value[i].is_number_integer();
        if (good) values.push_back(value[i].get<i64>());
    }
    if (!good) complain(key, shown(key) + " is no list of whole numbers", "e.g. [0, 2]");
    return good ? values : std::vector<i64>{};
}

std::vector<std::string> JsonDocument::texts(const std::string& key) {
    if (!has(key)) return {};
    std::vector<std::string> values;
    const json& value = *contents_->find(key);
    bool good = value.is_array();
    for (std::size_t i = 0; good && i < value.size(); ++i) {
        good = value[i].is_string();
        if (good) values.push_back(value[i].get<std::string>());
    }
    if (!good) complain(key, shown(key) + " is no list of texts", "e.g. [\"MixtralForCausalLM\"]");
    return good ? values : std::vector<std::string>{};
}

bool JsonDocument::object(const std::string& key) {
    return has(key) && contents_->find(key)->is_object();
}

bool JsonDocument::empty(const std::string& key) {
    if (!has(key)) return true;
    const json& value = *contents_->find(key);
    return (value.is_structured() && value.empty()) ||
           (value.is_string() && value.get<std::string>().empty());
}

std::map<std::string, std::string> JsonDocument::text_map(const std::string& key) {
    std::map<std::string, std::string> entries;
    if (!object(key)) {
        complain(key, shown(key) + " is no object of texts", "{\"name\": \"text\"}");
        return entries;
    }
    for (const auto& [name, value] : contents_->find(key)->items()) {
        if (value.is_string()) {
            entries.emplace(name, value.get<std::string>());
        } else {
            complain(key, detail::shown_name(name) + " has no text as its value", "the name of a file");
        }
    }
    return entries;
}

std::vector<std::string> JsonDocument::unread() const {
    std::vector<std::string> names;
    for (const auto& [name, value] : contents_->document.items())
        if (!read_.contains(name)) names.push_back(name);
    return names;
}

}  // namespace moesaic
