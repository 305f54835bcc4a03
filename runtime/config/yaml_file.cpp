#include "runtime/config/yaml_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/eventhandler.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <utility>

namespace moesaic {

namespace {

constexpr int kDeepest = 64;
constexpr int kMostValues = 100'000;

/// A text that is YAML, and none that anybody means.
class EndlessYaml : public YAML::Exception {
  public:
    using YAML::Exception::Exception;
};

class SeveralDocuments : public YAML::Exception {
  public:
    using YAML::Exception::Exception;
};

/// Counts documents and keeps nothing of them.
class DocumentCount : public YAML::EventHandler {
  public:
    std::vector<YAML::Mark> starts;
    void OnDocumentStart(const YAML::Mark& mark) override { starts.push_back(mark); }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
    void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
    void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                         YAML::EmitterStyle::value) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                    YAML::EmitterStyle::value) override {}
    void OnMapEnd() override {}
};

/// Visits every value as often as aliases lead to it; a value may hold itself.
class SizeCheck {
  public:
    void visit(const YAML::Node& node, int depth = 0) {
        if (depth > kDeepest)
            throw EndlessYaml(node.Mark(), fmt::format("nests deeper than {} levels", kDeepest));
        if (++values_ > kMostValues)
            throw EndlessYaml(node.Mark(),
                              fmt::format("has more than {} values, each alias counted as what it stands for",
                                          kMostValues));
        for (const auto& entry : node) {
            if (node.IsMap()) {
                visit(entry.first, depth + 1);
                visit(entry.second, depth + 1);
            } else {
                visit(entry, depth + 1);
            }
        }
    }

  private:
    int values_ = 0;
};

}  // namespace

std::optional<YAML::Node> load_yaml(const std::string& text) {
    // Not YAML::LoadAll: of ",1]" it makes documents without end, since none takes the comma.
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentCount count;
    while (count.starts.size() < 2 && parser.HandleNextDocument(count)) {
    }
    if (count.starts.empty()) return {};
    if (count.starts.size() > 1) {
        if (count.starts[0].pos == count.starts[1].pos)
            throw YAML::ParserException(count.starts[0], "no value begins like this");
        throw SeveralDocuments(YAML::Mark::null_mark(), "holds several YAML documents");
    }
    const YAML::Node document = YAML::Load(text);
    SizeCheck().visit(document);
    return document;
}

Diagnostic yaml_mistake(const std::string& file, const YAML::Exception& error) {
    const std::string where = error.mark.is_null() ? file : fmt::format("{}:{}", file, error.mark.line + 1);
    if (dynamic_cast<const EndlessYaml*>(&error))
        return {where, "", error.msg, "write the values out, without anchors"};
    if (dynamic_cast<const SeveralDocuments*>(&error)) return {where, "", error.msg, "keep one"};
    return {where, "", "is not YAML: " + error.msg, "check indentation, colons and quotes on this line"};
}

void YamlFile::read(const std::string& example, const std::function<void(const YAML::Node& root)>& read) {
    std::ifstream stream(path_, std::ios::binary);
    if (!stream || std::filesystem::is_directory(path_)) {
        diagnostics_.add({path_, "", "cannot be read", fmt::format("give {}, e.g. {}", kind_, example)});
        return;
    }
    std::error_code ignored;
    if (std::filesystem::file_size(path_, ignored) > kLargestYamlFile && !ignored) {
        diagnostics_.add({path_, "", "is larger than 1 MiB", fmt::format("this is hardly {}", kind_)});
        return;
    }
    const std::string words{std::istreambuf_iterator<char>(stream), {}};
    try {
        read(load_yaml(words).value_or(YAML::Node()));
    } catch (const YAML::Exception& error) {
        diagnostics_.add(yaml_mistake(path_, error));
    }
    diagnostics_.sort_by_line();
}

void YamlFile::complain(const YAML::Node& node, const std::string& key, std::string message,
                        std::string hint) {
    diagnostics_.add(
        {fmt::format("{}:{}", path_, node.Mark().line + 1), key, std::move(message), std::move(hint)});
}

bool YamlFile::check_keys(const YAML::Node& node, const std::string& section,
                          const std::vector<std::string>& known) {
    if (!node.IsMap()) {
        complain(node, section, "is not a mapping", "write `key: value` lines");
        return false;
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
        const std::string key = yaml_text(entry.first);
        const std::string full = section.empty() ? key : section + "." + key;
        if (!seen.insert(key).second) complain(entry.first, full, "is given twice", "keep one of the two");
        if (std::ranges::find(known, key) != known.end()) continue;
        const std::string near = nearest_name(key, known);
        complain(entry.first, full, fmt::format("is no key of {}", kind_),
                 near.empty() ? fmt::format("known are: {}", fmt::join(known, ", "))
                              : fmt::format("did you mean '{}'?", near));
    }
    return true;
}

std::string yaml_text(const YAML::Node& node) {
    if (node.IsScalar()) return node.Scalar();
    YAML::Emitter emitter;
    emitter.SetSeqFormat(YAML::Flow);
    emitter.SetMapFormat(YAML::Flow);
    emitter << node;
    return emitter.c_str();
}

}  // namespace moesaic
