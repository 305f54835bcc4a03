// One micro-batch on its way from windows of the data set to a model's input.
#pragma once

#include <algorithm>
#include <vector>

#include "layers/model.h"
#include "runtime/data/sampler.h"

namespace moesaic {

/// Holds up to `sequences` windows of seq_len+1 tokens on the host and as tokens and targets on the device.
class BatchWindows {
  public:
    /// With `document_mask`, the first token of a document is no target, and no token attends to another
    /// document than its own. Positions need no reset: rotary embeddings make attention depend on differences
    /// of positions alone (Su et al. 2021, eq. 16).
    BatchWindows(Backend& backend, i64 sequences, i64 seq_len, bool document_mask)
        : seq_len_(seq_len),
          windows_(static_cast<std::size_t>(sequences * (seq_len + 1))),
          documents_(document_mask ? windows_.size() : 0),
          tokens_(backend.allocate({sequences * seq_len}, DType::int32)),
          targets_(backend.allocate({sequences * seq_len}, DType::int32)) {
        if (document_mask) first_key_ = backend.allocate({sequences * seq_len}, DType::int32);
    }

    /// Host memory for the windows, to be filled before the functions below.
    [[nodiscard]] WindowBuffer host() {
        return {windows_.data(), documents_.empty() ? nullptr : documents_.data()};
    }

    /// Targets of window `sequence` that are not masked.
    [[nodiscard]] i64 targets(i64 sequence) const {
        if (documents_.empty()) return seq_len_;
        i64 count = 0;
        for (i64 t = 0; t < seq_len_; ++t) count += begins_document(sequence, t + 1) ? 0 : 1;
        return count;
    }

    /// The first `count` windows as a batch: token t of a window predicts token t+1. `first_sequence` is the
    /// first one's number in the global batch.
    [[nodiscard]] Batch load(i64 count, i64 first_sequence) {
        for (i64 s = 0; s < count; ++s) {
            const i32* const window = windows_.data() + s * (seq_len_ + 1);
            std::copy_n(window, seq_len_, tokens_.as<i32>() + s * seq_len_);
            std::copy_n(window + 1, seq_len_, targets_.as<i32>() + s * seq_len_);
            if (!documents_.empty()) mask_documents(s);
        }
        const i64 rows = count * seq_len_;
        Batch batch{tokens_.slice_rows(0, rows), targets_.slice_rows(0, rows), count, seq_len_};
        if (!documents_.empty()) batch.first_key = first_key_.slice_rows(0, rows);
        batch.first_sequence = first_sequence;
        return batch;
    }

  private:
    [[nodiscard]] bool begins_document(i64 sequence, i64 place) const {
        return documents_[static_cast<std::size_t>(sequence * (seq_len_ + 1) + place)] == place;
    }
    void mask_documents(i64 sequence) {
        const i64 row = sequence * seq_len_;
        const i32* const documents = documents_.data() + sequence * (seq_len_ + 1);
        for (i64 t = 0; t < seq_len_; ++t) {
            first_key_.as<i32>()[row + t] = static_cast<i32>(row + documents[t]);
            if (begins_document(sequence, t + 1)) targets_.as<i32>()[row + t] = -1;
        }
    }

    i64 seq_len_;
    std::vector<i32> windows_, documents_;
    Tensor tokens_, targets_, first_key_;
};

}  // namespace moesaic
