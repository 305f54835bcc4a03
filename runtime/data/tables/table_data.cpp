#include "runtime/data/tables/table_data.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/checksum.h"
#include "runtime/base/error.h"
#include "runtime/data/permutation.h"

namespace moesaic {

namespace {

/// Mean and standard deviation of every `stride`-th of `values`; a deviation of 0 becomes 1.
template <class Number>
std::pair<double, double> moments(const std::vector<Number>& values, i64 first, i64 stride, i64 count) {
    const auto at = [&](i64 i) {
        return static_cast<double>(values[static_cast<std::size_t>(first + i * stride)]);
    };
    double sum = 0, squares = 0;
    for (i64 i = 0; i < count; ++i) sum += at(i);
    const double mean = sum / static_cast<double>(count);
    for (i64 i = 0; i < count; ++i) squares += (at(i) - mean) * (at(i) - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(count));
    return {mean, deviation > 0 ? deviation : 1.0};
}

}  // namespace

TableData::TableData(Table table, const TableDataOptions& options) : table_(std::move(table)) {
    const auto held_out = static_cast<i64>(std::floor(static_cast<double>(table_.rows) * options.validation));
    training_ = table_.rows - held_out;
    if (training_ < 1 || (options.validation > 0 && held_out < 1))
        throw UserError(
            fmt::format("task.data.validation: {} of {} examples leaves {} for training and {} held "
                        "out; at least one of each",
                        options.validation, table_.rows, training_, held_out));
    shuffle(options.split_seed);
    if (options.random_labels) shuffle_targets(options.split_seed);
    if (options.standardize) standardize();
}

void TableData::shuffle(u64 seed) {
    const KeyedPermutation order(table_.rows, seed, "split");
    const auto columns = static_cast<std::size_t>(table_.columns);
    std::vector<float> features(table_.features.size());
    std::vector<double> targets(table_.targets.size());
    for (i64 i = 0; i < table_.rows; ++i) {
        const auto from = static_cast<std::size_t>(order(i)), to = static_cast<std::size_t>(i);
        std::copy_n(table_.features.data() + from * columns, columns, features.data() + to * columns);
        targets[to] = table_.targets[from];
    }
    table_.features = std::move(features);
    table_.targets = std::move(targets);
}

void TableData::shuffle_targets(u64 seed) {
    const KeyedPermutation order(training_, seed, "random labels");
    const std::vector<double> own(table_.targets.begin(), table_.targets.begin() + training_);
    for (i64 i = 0; i < training_; ++i)
        table_.targets[static_cast<std::size_t>(i)] = own[static_cast<std::size_t>(order(i))];
}

void TableData::standardize() {
    for (i64 column = 0; column < table_.columns; ++column) {
        const auto [mean, deviation] = moments(table_.features, column, table_.columns, training_);
        for (i64 i = column; i < std::ssize(table_.features); i += table_.columns) {
            float& value = table_.features[static_cast<std::size_t>(i)];
            value = static_cast<float>((static_cast<double>(value) - mean) / deviation);
        }
    }
    if (classifies()) return;
    const auto [mean, deviation] = moments(table_.targets, 0, 1, training_);
    for (double& value : table_.targets) value = (value - mean) / deviation;
    target_scale_ = deviation;
}

SampleShape TableData::shape() const {
    SampleShape shape;
    shape.features = table_.columns + 1;
    shape.outputs = classifies() ? std::ssize(table_.class_names) : 1;
    shape.real_targets = !classifies();
    return shape;
}

void TableData::divide(i64 cells, i64 each, std::string_view prototypes, i64 branches) {
    std::vector<float> chosen =
        choose_prototypes(table_.features.data(), training_, table_.columns, cells, prototypes);
    if (std::ssize(chosen) < cells * table_.columns)
        throw UserError(
            fmt::format("model.moe.experts: {} cells, but only {} different inputs to train on; at "
                        "most as many",
                        cells, std::ssize(chosen) / table_.columns));
    cells_.emplace(std::move(chosen), table_.columns, branches);
    each_ = each;
    rows_.assign(static_cast<std::size_t>(cells), {});
    const auto features = [&](i64 row) { return table_.features.data() + row * table_.columns; };
    for (i64 row = 0; row < training_; ++row)
        rows_[static_cast<std::size_t>(cells_->cell_of(features(row)))].push_back(row);
    const std::vector<std::vector<i64>> own = rows_;
    for (i64 cell = 0; cell < cells; ++cell) {
        std::vector<i64>& rows = rows_[static_cast<std::size_t>(cell)];
        if (!rows.empty()) continue;
        std::vector<float> others = cells_->prototypes();
        for (i64 other = 0; other < cells; ++other) {
            float* const prototype = others.data() + other * table_.columns;
            if (own[static_cast<std::size_t>(other)].empty())
                std::fill_n(prototype, table_.columns, std::numeric_limits<float>::infinity());
        }
        const CellTree with_rows(others, table_.columns, std::max<i64>(cells, 2));
        const float* const here = cells_->prototypes().data() + cell * table_.columns;
        rows = own[static_cast<std::size_t>(with_rows.nearest_prototype(here))];
    }
}

i64 TableData::training_sequence(u64 seed, i64 number) const {
    if (cells_) {
        const i64 batch = number / (cells_->cells() * each_), place = number % (cells_->cells() * each_);
        const std::vector<i64>& rows = rows_[static_cast<std::size_t>(place / each_)];
        const i64 ordinal = batch * each_ + place % each_, count = std::ssize(rows);
        const KeyedPermutation order(count, seed,
                                     fmt::format("cell {} epoch {}", place / each_, ordinal / count));
        return rows[static_cast<std::size_t>(order(ordinal % count))];
    }
    const KeyedPermutation order(training_, seed, fmt::format("epoch {}", number / training_));
    return order(number % training_);
}

i64 TableData::first_epoch_sequences(u64) const {
    if (!cells_) return training_;
    i64 batches = training_;  // until the smallest cell begins anew
    for (const std::vector<i64>& rows : rows_) batches = std::min(batches, std::ssize(rows) / each_);
    return batches * cells_->cells() * each_;
}

void TableData::copy(i64 row, WindowBuffer out) const {
    MOESAIC_ASSERT(0 <= row && row < table_.rows, "example {} of {}", row, table_.rows);
    std::copy_n(table_.features.data() + row * table_.columns, table_.columns, out.features);
    out.features[table_.columns] = 1;
    if (cells_ && out.cells != nullptr)
        *out.cells = static_cast<i32>(cells_->cell_of(table_.features.data() + row * table_.columns));
    const double target = table_.targets[static_cast<std::size_t>(row)];
    if (classifies()) {
        *out.targets = static_cast<i32>(target);
    } else {
        *out.values = target;
    }
}

SampleError TableData::error() const {
    return classifies() ? SampleError::share_wrong : SampleError::distance;
}

std::span<const float> TableData::prototypes() const {
    if (!cells_) return {};
    return cells_->prototypes();
}

std::string TableData::unit() const {
    return fmt::format("examples of {} features", table_.columns);
}

std::string TableData::loss_unit() const {
    return classifies() ? "nats/example" : "mean squared error";
}

std::string TableData::fingerprint() const {
    const std::vector<float>& features = table_.features;
    const std::vector<double>& targets = table_.targets;
    return fmt::format("{} {} {:016x} {:016x}", training_, table_.rows,
                       checksum_of(features.data(), features.size() * sizeof(float)),
                       checksum_of(targets.data(), targets.size() * sizeof(double)));
}

std::vector<std::string> TableData::files() const {
    const std::string target =
        classifies() ? fmt::format("{} classes of '{}'", table_.class_names.size(), table_.target_name)
                     : fmt::format("values of '{}'", table_.target_name);
    std::vector<std::string> lines{
        fmt::format("{}: {} examples, {} features, {}", table_.layout, table_.rows, table_.columns, target)};
    if (cells_)
        lines.push_back(fmt::format("{} cells; an input's is found by at most {} distances to centres",
                                    cells_->cells(), cells_->longest_walk()));
    return lines;
}

}  // namespace moesaic
