// One micro-batch on its way from samples in host memory to a model's input.
#pragma once

#include <vector>

#include "layers/model.h"
#include "runtime/data/task_data.h"

namespace moesaic {

/// What the samples are made of that a model of this shape reads.
[[nodiscard]] SampleShape sample_shape(const ModelSpec& spec);

/// Holds up to `sequences` samples on the host and as a batch on the device: windows of seq_len + 1 tokens,
/// whose targets are the next ones; tokens with targets of their own; or features with classes or values.
class BatchWindows {
  public:
    /// With `document_mask`, the first token of a document is no target, and no token attends to another
    /// document than its own. Positions need no reset: rotary embeddings make attention depend on differences
    /// of positions alone (Su et al. 2021, eq. 16). Features are stored as `dtype`.
    BatchWindows(Backend& backend, const Mesh& mesh, const ModelSpec& spec, DType dtype, i64 sequences,
                 bool document_mask);

    /// Host memory for the samples, to be filled before the functions below.
    [[nodiscard]] WindowBuffer host();
    /// Targets of sample `sequence` that are not masked.
    [[nodiscard]] i64 targets(i64 sequence) const;
    /// Whether a sample's loss is this rank's to tell: of a MoMLP where the expert of its cell is here.
    [[nodiscard]] bool is_here(i64 sequence) const;
    /// The first `count` samples as a batch. `first_sequence` is the first one's number in the global batch.
    [[nodiscard]] Batch load(i64 count, i64 first_sequence);

  private:
    void load_windows(i64 count);
    /// Sorts the samples that are here by expert, and takes the targets from the others.
    void load_cells(i64 count, Batch& batch);
    [[nodiscard]] bool begins_document(i64 sequence, i64 place) const;
    void mask_documents(i64 sequence);

    SampleShape shape_;
    i64 first_expert_;
    std::vector<i64> rows_per_expert_;  // of this rank; kind momlp
    // What the shape has no use for stays empty.
    std::vector<i32> windows_, documents_, host_targets_, host_cells_;
    std::vector<float> host_features_;
    std::vector<double> host_values_;
    Tensor tokens_, targets_, first_key_, features_, values_, order_, slot_;
};

}  // namespace moesaic
