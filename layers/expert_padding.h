// Experts that compute on as many rows whatever the routing, zero rows where there are fewer.
#pragma once

#include <span>
#include <vector>

#include "comm/exchange/indexed_rows.h"

namespace moesaic {

/// Rows grouped by local expert [R,H] <-> the same with each expert's rows followed by zeros up to `rows`
/// [e*rows,H]. Zero rows give zeros and add nothing to gradients, so results do not change.
class ExpertPadding {
  public:
    /// rows_per_expert [e], each at most `rows`; rows_per_source [e,W] as DispatchChunk has it.
    ExpertPadding(StepContext& context, i64 rows, std::span<const i64> rows_per_expert,
                  std::span<const i64> rows_per_source);

    [[nodiscard]] Tensor pad(StepContext& context, const IndexedRows& by_expert) const;
    void unpad(StepContext& context, ConstTensorView padded, TensorView grouped) const;

    [[nodiscard]] std::span<const i64> rows_per_expert() const { return rows_per_expert_; }
    /// [e,W+1]: the zeros come last.
    [[nodiscard]] std::span<const i64> rows_per_source() const { return rows_per_source_; }

  private:
    std::vector<i64> rows_per_expert_, rows_per_source_;
    std::vector<i32> host_from_grouped_, host_from_padded_;  // copied to the device
    Tensor from_grouped_, from_padded_;                      // i32 [e*rows], -1: zero; R of [e*rows]
};

}  // namespace moesaic
