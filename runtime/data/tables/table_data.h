// A table as training data: split at random, standardised by its training part.
#pragma once

#include <optional>

#include "runtime/data/tables/cell_tree.h"
#include "runtime/data/tables/table.h"
#include "runtime/data/task_data.h"

namespace moesaic {

struct TableDataOptions {
    double validation = 0.1;  ///< share of the examples that is held out; in [0, 1)
    u64 split_seed = 1;
    bool standardize = true;
    /// The training part's targets are shuffled among its examples, in an order that follows from split_seed:
    /// what is fitted then is fitted by heart. The held-out part keeps its own.
    bool random_labels = false;
};

/// Every example is one sample: its features, then a 1 in place of biases, with a class or a value. The
/// held-out part is the end of an order of the examples that follows from split_seed; the training part is
/// visited once an epoch, in an order of its own for every epoch and run.seed. With `standardize` features
/// and values have mean 0 and variance 1 over the training part; a feature that is constant there becomes 0.
class TableData final : public TaskData {
  public:
    /// Throws UserError where a part would be empty.
    TableData(Table table, const TableDataOptions& options);

    [[nodiscard]] SampleShape shape() const override;
    [[nodiscard]] i64 training_windows() const override { return training_; }
    [[nodiscard]] i64 validation_windows() const override { return table_.rows - training_; }
    [[nodiscard]] i64 training_sequence(u64 seed, i64 number) const override;
    [[nodiscard]] i64 first_epoch_sequences(u64 seed) const override;
    void training_window(i64 index, WindowBuffer out) const override { copy(index, out); }
    void validation_window(i64 index, WindowBuffer out) const override { copy(training_ + index, out); }
    /// The share of wrong classes, or the distance in the target's own unit.
    [[nodiscard]] SampleError error() const override;
    [[nodiscard]] double distance_unit() const override { return target_scale_; }
    [[nodiscard]] std::span<const float> prototypes() const override;
    [[nodiscard]] std::string unit() const override;
    [[nodiscard]] std::string row_name() const override { return "examples"; }
    [[nodiscard]] std::string loss_unit() const override;
    [[nodiscard]] std::string fingerprint() const override;
    [[nodiscard]] std::vector<std::string> files() const override;

    /// Divides the inputs into `cells` cells, by prototypes of the training part. From now on every batch
    /// holds `each` training examples of every cell, cell by cell, each cell in epochs of its own; a cell
    /// without training examples takes those of the nearest one that has some. Throws UserError where there
    /// are fewer distinct inputs.
    void divide(i64 cells, i64 each, std::string_view prototypes, i64 branches);
    /// Null where the inputs are not divided.
    [[nodiscard]] const CellTree* cells() const { return cells_ ? &*cells_ : nullptr; }
    [[nodiscard]] const Table& table() const { return table_; }

  private:
    [[nodiscard]] bool classifies() const { return !table_.class_names.empty(); }
    void shuffle(u64 seed);
    void shuffle_targets(u64 seed);
    void standardize();
    void copy(i64 row, WindowBuffer out) const;

    Table table_;  // shuffled: training examples first
    i64 training_;
    double target_scale_ = 1;
    std::optional<CellTree> cells_;
    i64 each_ = 0;                        // examples of a cell in a batch
    std::vector<std::vector<i64>> rows_;  // training examples by cell
};

}  // namespace moesaic
