// IDX, the format of MNIST: big-endian extents, then unsigned bytes.
#include <algorithm>
#include <filesystem>
#include <limits>

#include "runtime/base/error.h"
#include "runtime/base/mapped_file.h"
#include "runtime/data/tables/table.h"

namespace moesaic {

namespace {

struct IdxArray {
    MappedFile file;
    std::vector<i64> shape;
    i64 data_at = 0, elements = 1;
    [[nodiscard]] i64 value(i64 index) const {
        return std::to_integer<i64>(file.data()[static_cast<std::size_t>(data_at + index)]);
    }
};

IdxArray open_idx(const std::string& path) {
    IdxArray array{MappedFile(path), {}, 4, 1};
    const auto size = static_cast<i64>(array.file.size());
    const auto byte = [&](i64 at) {
        return at < size ? std::to_integer<i64>(array.file.data()[static_cast<std::size_t>(at)]) : i64{-1};
    };
    if (byte(0) == 0x1f && byte(1) == 0x8b)
        throw UserError(fmt::format("{}: is compressed; gunzip it first", path));
    if (byte(0) != 0 || byte(1) != 0 || byte(2) != 8 || byte(3) < 1 || byte(3) > 8)
        throw UserError(
            fmt::format("{}: byte 0: is no IDX file of unsigned bytes; it begins with 0, 0, 8 and "
                        "the number of dimensions",
                        path));
    for (i64 i = 0; i < byte(3); ++i, array.data_at += 4) {
        i64 extent = 0;
        for (i64 j = 0; j < 4; ++j) extent = extent * 256 + std::max<i64>(byte(array.data_at + j), 0);
        array.shape.push_back(extent);
        if (__builtin_mul_overflow(array.elements, extent, &array.elements))
            array.elements = std::numeric_limits<i64>::max();
    }
    if (array.elements != size - array.data_at)
        throw UserError(fmt::format("{}: byte 4: the extents promise {} elements, and {} bytes follow", path,
                                    array.elements, std::max<i64>(size - array.data_at, 0)));
    return array;
}

std::string idx_labels_file(const TableOptions& options) {
    if (options.labels != "auto") return options.labels;
    std::filesystem::path path(options.path);
    std::string name = path.filename().string();
    for (const auto& [from, to] : {std::pair("images", "labels"), std::pair("idx3", "idx1")}) {
        const std::size_t at = name.find(from);
        if (at == std::string::npos)
            throw UserError(
                fmt::format("{}: the name does not tell the file of the labels; task.data.labels: "
                            "FILE",
                            options.path));
        name.replace(at, std::string(from).size(), to);
    }
    return path.replace_filename(name).string();
}

}  // namespace

Table read_idx_table(const TableOptions& options) {
    const IdxArray features = open_idx(options.path);
    const std::string labels_path = idx_labels_file(options);
    const IdxArray labels = open_idx(labels_path);
    Table table;
    table.rows = features.shape[0];
    // Where there is no example, the other extents may be any numbers.
    table.columns = table.rows > 0 ? features.elements / table.rows : 0;
    if (labels.shape.size() != 1 || labels.shape[0] != table.rows)
        throw UserError(fmt::format("{}: is no label for each of the {} examples of {}", labels_path,
                                    table.rows, options.path));
    table.layout = "IDX";
    table.target_name = "label";
    for (i64 i = 0; i < table.columns; ++i) table.feature_names.push_back(fmt::format("{}", i + 1));
    table.features.resize(static_cast<std::size_t>(table.rows * table.columns));
    for (i64 i = 0; i < table.rows * table.columns; ++i)
        table.features[static_cast<std::size_t>(i)] = static_cast<float>(features.value(i));
    std::vector<std::string> classes;
    for (i64 i = 0; i < table.rows; ++i) {
        table.targets.push_back(static_cast<double>(labels.value(i)));
        classes.push_back(fmt::format("{}", labels.value(i)));
    }
    if (options.classes) {
        table.targets.clear();
        detail::number_classes(classes, table);
    }
    return table;
}

}  // namespace moesaic
