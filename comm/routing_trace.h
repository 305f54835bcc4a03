// Files of routing decisions: written by a run, followed by another.
#pragma once

#include <span>
#include <string>

#include "runtime/data/npy.h"

namespace moesaic {

/// A NumPy array (.npy) of int32 [steps, layers with experts, tokens of the global batch, K]: the experts
/// that each token chose. It does not depend on the layout of the run.
struct RoutingTraceShape {
    i64 steps = 0, layers = 0, tokens = 0, choices = 0;
};

/// Immutable: threads may share it.
class RoutingTrace {
  public:
    /// UserError where the file is no such array, or not one of `layers` layers, `choices` choices and
    /// `experts` experts.
    RoutingTrace(const std::string& path, i64 layers, i64 choices, i64 experts);

    [[nodiscard]] const RoutingTraceShape& shape() const { return shape_; }
    /// Choices [T,K] of tokens first_token... in `layer` (from 0, among those with experts) of `step` (from
    /// 1). Steps and tokens beyond the trace's begin again at its first. UserError where a token has an
    /// expert twice or one that is none.
    void read(i64 step, i64 layer, i64 first_token, std::span<i32> experts) const;

  private:
    NpyIds array_;
    RoutingTraceShape shape_;
};

/// Writes such a file in pieces, in any order, by any number of processes that share it.
class RoutingTraceWriter {
  public:
    /// Opens the file, or makes one of this shape. One that is there must have the same shape: it is
    /// overwritten piece by piece, so that a run may go on in it.
    RoutingTraceWriter(std::string path, const RoutingTraceShape& shape);
    RoutingTraceWriter(const RoutingTraceWriter&) = delete;
    RoutingTraceWriter& operator=(const RoutingTraceWriter&) = delete;
    ~RoutingTraceWriter();

    /// Arguments as RoutingTrace::read.
    void write(i64 step, i64 layer, i64 first_token, std::span<const i32> experts);

  private:
    void write_at(i64 byte, const void* data, i64 bytes);

    std::string path_;
    RoutingTraceShape shape_;
    i64 header_bytes_ = 0;
    int file_ = -1;
};

}  // namespace moesaic
