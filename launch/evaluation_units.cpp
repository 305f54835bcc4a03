#include "launch/evaluation_units.h"

#include <algorithm>
#include <map>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr i64 kLeastDocuments = 64;  // below it a limit is far above what was measured

/// Why a document's loss may depend on what follows it in its window, or on other windows; empty: it does
/// not.
std::string why_documents_depend(const ModelSpec& spec) {
    if (spec.experts == 0) return "";
    if (spec.capacity) return "a capacity drops choices: a document's loss depends on what follows it";
    if (spec.router.kind == "expert_choice")
        return "experts choose among a sequence's tokens: a document's loss depends on what follows it";
    return "";
}

double documents_per_sequence(const TaskData& data, const std::vector<i64>& windows) {
    double count = 0;
    for (const i64 window : windows) {
        for (const WindowDocument& document : data.documents_of(DataPart::training, window))
            count += document.first_window == window ? 1 : 0;
    }
    return count / static_cast<double>(std::max<std::size_t>(windows.size(), 1));
}

}  // namespace

std::size_t DocumentUnits::most_pieces() const {
    std::size_t most = 0;
    for (const auto& pieces : windows) most = std::max(most, pieces.size());
    return most;
}

i64 DocumentUnits::fresh() const {
    return std::ranges::count_if(documents, [](const Document& one) { return !one.crosses_cut; });
}

DocumentUnits document_units(const TaskData& data, DataPart part, const std::vector<i64>& windows) {
    DocumentUnits units;
    std::map<i64, DocumentUnits::Document> documents;  // by number
    std::vector<std::vector<WindowDocument>> found;
    for (const i64 window : windows) {
        found.push_back(data.documents_of(part, window));
        for (const WindowDocument& one : found.back())
            documents[one.document] = {one.document, one.whole, one.crosses_cut};
    }
    std::map<i64, std::size_t> places;
    for (const auto& [number, document] : documents) {
        places[number] = units.documents.size();
        units.documents.push_back(document);
    }
    for (const std::vector<WindowDocument>& window : found) {
        std::vector<DocumentUnits::Piece>& pieces = units.windows.emplace_back();
        for (const WindowDocument& one : window)
            pieces.push_back({places.at(one.document), {one.first_target, one.targets}});
    }
    return units;
}

void add_piece(const UnitScores& piece, UnitScores& document) {
    document.targets += piece.targets;
    for (std::size_t i = 0; i < kUnitLosses; ++i) document.losses[i] += piece.targets * piece.losses[i];
}

void divide_by_targets(std::vector<UnitScores>& documents) {
    for (UnitScores& document : documents) {
        for (double& loss : document.losses) loss /= std::max(document.targets, 1.0);
    }
}

UnitChoice choose_unit(const Config& config, const ModelSpec& spec, const TaskData& data,
                       const std::vector<i64>& heldout, const std::vector<i64>& seen) {
    UnitChoice choice;
    choice.text = config.task.kind == "lm";
    choice.name = choice.text || spec.seq_len > 1 ? "sequence" : "example";
    if (!choice.text) return choice;
    const std::string& asked = config.generalization.unit;
    if (asked == "sequence") {
        choice.reason = "as generalization.unit says; windows of one document are taken as independent";
        return choice;
    }
    const bool holds_out = !heldout.empty();
    const i64 documents = holds_out ? document_units(data, DataPart::heldout, heldout).fresh()
                                    : std::ssize(document_units(data, DataPart::training, seen).documents);
    const std::string count =
        fmt::format("the {} has {} document{}", holds_out ? "held-out shard" : "training probe", documents,
                    documents == 1 ? "" : "s");
    if (asked == "document" && documents < 2)
        throw UserError(fmt::format(
            "generalization.unit: document: {}{}; give data with documents (JSON Lines, a Megatron index, "
            "task.data.end_of_document), hold out more of them, or use sequence",
            count, holds_out ? " besides the one that training has met the beginning of" : ""));
    const std::string dependent = why_documents_depend(spec);
    if (asked == "auto" && !dependent.empty()) {
        choice.reason = dependent;
    } else if (asked == "auto" && documents < kLeastDocuments) {
        choice.reason = fmt::format("{}, fewer than {}; windows of one document are taken as independent",
                                    count, kLeastDocuments);
    } else {
        choice.documents = true;
        choice.name = "document";
        choice.reason = dependent.empty() ? count : count + "; but " + dependent;
        choice.documents_per_sequence = documents_per_sequence(data, seen);
    }
    return choice;
}

}  // namespace moesaic
