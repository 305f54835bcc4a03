// One micro-batch on its way from windows of the data set to a model's input.
#pragma once

#include <vector>

#include "layers/model.h"

namespace moesaic {

/// Holds up to `sequences` windows of seq_len+1 tokens on the host and as tokens and targets on the device.
class BatchWindows {
  public:
    BatchWindows(Backend& backend, i64 sequences, i64 seq_len)
        : seq_len_(seq_len),
          windows_(static_cast<std::size_t>(sequences * (seq_len + 1))),
          tokens_(backend.allocate({sequences * seq_len}, DType::int32)),
          targets_(backend.allocate({sequences * seq_len}, DType::int32)) {}

    /// Host memory [sequences, seq_len+1] to be filled before load().
    [[nodiscard]] i32* host() { return windows_.data(); }

    /// The first `count` windows as a batch: token t of a window predicts token t+1.
    [[nodiscard]] Batch load(i64 count) {
        for (i64 s = 0; s < count; ++s) {
            const i32* const window = windows_.data() + s * (seq_len_ + 1);
            std::copy_n(window, seq_len_, tokens_.as<i32>() + s * seq_len_);
            std::copy_n(window + 1, seq_len_, targets_.as<i32>() + s * seq_len_);
        }
        return {tokens_.slice_rows(0, count * seq_len_), targets_.slice_rows(0, count * seq_len_), count,
                seq_len_};
    }

  private:
    i64 seq_len_;
    std::vector<i32> windows_;
    Tensor tokens_, targets_;
};

}  // namespace moesaic
