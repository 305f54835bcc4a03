// What is drawn independently, and certificates and intervals count: documents, sequences or examples.
#pragma once

#include <string>
#include <vector>

#include "layers/model_spec.h"
#include "runtime/config/config.h"
#include "runtime/data/task_data.h"
#include "runtime/metrics/unit_losses.h"

namespace moesaic {

/// generalization.unit, resolved.
struct UnitChoice {
    bool text = false;  ///< of a language model
    bool documents = false;
    std::string name = "example";  ///< document, sequence or example
    std::string reason;            ///< of language models: why, in words
    /// Of language models: documents that training meets for the first time with a sequence, on average.
    double documents_per_sequence = 0;
};

/// Documents of text windows, each counted once: in which windows of a shard which targets belong to it.
struct DocumentUnits {
    struct Piece {
        std::size_t unit = 0;  ///< its place in `documents`
        TargetRange targets;
    };
    struct Document {
        i64 number = 0;  ///< WindowDocument::document
        bool whole = false, crosses_cut = false;
    };
    std::vector<std::vector<Piece>> windows;  ///< by place in the shard
    std::vector<Document> documents;          ///< ascending by number

    [[nodiscard]] std::size_t most_pieces() const;
    /// Those of which no other part of the data has anything.
    [[nodiscard]] i64 fresh() const;
};
[[nodiscard]] DocumentUnits document_units(const TaskData& data, DataPart part,
                                           const std::vector<i64>& windows);

/// Adds a document's piece to it, weighted by targets; divide_by_targets, after all pieces, makes means of
/// the sums.
void add_piece(const UnitScores& piece, UnitScores& document);
void divide_by_targets(std::vector<UnitScores>& documents);

/// Documents where the shard that certificates are from, `heldout` or without one `seen`, has at least 64 of
/// them, or where the configuration says so; UserError where it then has fewer than two.
[[nodiscard]] UnitChoice choose_unit(const Config& config, const ModelSpec& spec, const TaskData& data,
                                     const std::vector<i64>& heldout, const std::vector<i64>& seen);

}  // namespace moesaic
