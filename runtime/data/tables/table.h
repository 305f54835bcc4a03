// Examples as numbers: rows of features, each with a class or a value; and the readers that make them of
// files.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

struct Table {
    i64 rows = 0, columns = 0;
    std::vector<float> features;             ///< [rows, columns]
    std::vector<double> targets;             ///< [rows]; of a class its number in class_names
    std::vector<std::string> feature_names;  ///< [columns]
    std::vector<std::string> class_names;    ///< in ascending order; empty where targets are values
    std::string target_name;
    std::string layout;  ///< for people: "CSV with header"
};

struct TableOptions {
    std::string path;
    std::string format = "auto";   ///< auto, csv, npy, idx
    std::string target = "last";   ///< CSV: a column by name or number from 1
    std::string features = "all";  ///< CSV: columns, separated by commas
    std::string labels = "auto";   ///< of .npy and IDX: the file of the targets
    bool classes = true;           ///< targets are classes, else values
};

/// CSV (tab-separated where it ends in .tsv), `X.npy` with `y.npy`, or IDX. Throws UserError "file:line: ..."
/// with up to 20 mistakes, where a number is missing, is none or is not finite, and where a column is not
/// there.
[[nodiscard]] Table read_table(const TableOptions& options);

/// The formats' own readers, which read_table chooses from.
///
/// The first line is a header where none of its fields is a number, or a date above another date. A column of
/// dates and times (2010-01-31, 2010-01-31T13:00:00) becomes four features: sine and cosine of the place in
/// the year and in the day. Other columns of features are numbers. Fields may be quoted as in RFC 4180; empty
/// lines are passed over.
[[nodiscard]] Table read_csv_table(const TableOptions& options);
/// Features [N,D] or [N,...] of integers or floating-point numbers, targets [N] in the labels' file; auto:
/// the same name with a last X replaced by y, x_train.npy and y_train.npy included.
[[nodiscard]] Table read_npy_table(const TableOptions& options);
/// Features of unsigned bytes, targets [N]; auto: as MNIST names them, images-idx3 and labels-idx1.
[[nodiscard]] Table read_idx_table(const TableOptions& options);

namespace detail {

/// Numbers the classes of `labels` in ascending order: by value where all are numbers, else as texts.
void number_classes(const std::vector<std::string>& labels, Table& table);

}  // namespace detail

}  // namespace moesaic
