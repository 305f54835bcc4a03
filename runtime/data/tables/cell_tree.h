// Cells of the inputs around prototypes, and the tree by which a MoMLP finds the cell of an input (arXiv
// 2402.03460).
#pragma once

#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// `count` prototypes [count, columns] among or between rows [rows, columns]; deterministic. farthest_point:
/// the row nearest the mean, then always the row farthest from those chosen (Gonzalez 1985); k_means: from
/// there 25 iterations of Lloyd's algorithm. Fewer where there are fewer distinct rows.
[[nodiscard]] std::vector<float> choose_prototypes(const float* features, i64 rows, i64 columns, i64 count,
                                                   std::string_view method);

/// Prototypes are clustered into at most `branches` groups, each group again, down to single ones. An input's
/// cell is found by walking to the child whose centre (of a leaf: whose prototype) is nearest, ties to the
/// first; near borders that need not be the nearest prototype of all. The walk defines the cells.
class CellTree {
  public:
    CellTree(std::vector<float> prototypes, i64 columns, i64 branches);

    [[nodiscard]] i64 cells() const { return static_cast<i64>(prototypes_.size()) / columns_; }
    /// [columns] -> number of the prototype.
    [[nodiscard]] i64 cell_of(const float* x) const;
    /// The nearest prototype of all, ties to the first.
    [[nodiscard]] i64 nearest_prototype(const float* x) const;
    /// Most centres that a walk compares with.
    [[nodiscard]] i64 longest_walk() const { return longest_walk_; }
    [[nodiscard]] const std::vector<float>& prototypes() const { return prototypes_; }

  private:
    struct Node {
        std::vector<float> centre;
        i64 prototype = -1;  // of a leaf
        std::vector<std::size_t> children;
    };
    std::size_t grow(const std::vector<i64>& members, i64 branches, i64 walked);

    std::vector<float> prototypes_;  // [cells, columns]
    i64 columns_;
    std::vector<Node> nodes_;  // the last is the root
    i64 longest_walk_ = 0;
};

}  // namespace moesaic
