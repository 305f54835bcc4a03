// Features and targets in arrays of NumPy, of any type of numbers.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "runtime/base/error.h"
#include "runtime/data/npy.h"
#include "runtime/data/tables/table.h"

namespace moesaic {

namespace {

template <class Number>
std::vector<double> copied(const NpyArray& array) {
    const i64 count = expect_npy_elements(array, sizeof(Number));
    std::vector<double> values;
    values.reserve(static_cast<std::size_t>(count));
    for (i64 i = 0; i < count; ++i) {
        Number value{};
        std::memcpy(&value, array.file.data() + array.data_at + i * static_cast<i64>(sizeof(Number)),
                    sizeof(Number));
        values.push_back(static_cast<double>(value));
    }
    return values;
}

struct NumberType {
    std::string_view kind;
    std::vector<double> (*read)(const NpyArray&);
};

std::vector<double> numbers_of(const NpyArray& array) {
    static constexpr NumberType kTypes[] = {{"f4", copied<float>},         {"f8", copied<double>},
                                            {"u1", copied<std::uint8_t>},  {"i1", copied<std::int8_t>},
                                            {"u2", copied<std::uint16_t>}, {"i2", copied<std::int16_t>},
                                            {"u4", copied<u32>},           {"i4", copied<i32>},
                                            {"u8", copied<u64>},           {"i8", copied<i64>}};
    const std::string_view descr = array.descr;  // '<f4' with its quotes
    for (const NumberType& type : kTypes) {
        const bool little = descr.size() == 5 && (descr[1] != '>' || descr[3] == '1');
        if (!little || descr.substr(2, 2) != type.kind) continue;
        std::vector<double> numbers = type.read(array);
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            if (!std::isfinite(numbers[i]))
                throw UserError(fmt::format("{}: element {} is {}; mend or remove its example",
                                            array.file.path(), i, numbers[i]));
        }
        return numbers;
    }
    throw UserError(
        fmt::format("{}: byte 10: elements of type {} are no little-endian numbers; convert them "
                    "first, e.g. with .astype('<f4')",
                    array.file.path(), descr));
}

std::string npy_labels_file(const TableOptions& options) {
    if (options.labels != "auto") return options.labels;
    std::filesystem::path path(options.path);
    std::string name = path.filename().string();
    const std::size_t at = name.find_last_of("xX");
    if (at != std::string::npos) {
        name[at] = 'y';
        return path.replace_filename(name).string();
    }
    throw UserError(fmt::format(
        "{}: the name does not tell the file of the targets; task.data.labels: FILE.npy", options.path));
}

}  // namespace

Table read_npy_table(const TableOptions& options) {
    const NpyArray features = open_npy_array(options.path, 8);
    const std::string labels_path = npy_labels_file(options);
    const NpyArray labels = open_npy_array(labels_path, 1);
    const std::vector<double> numbers = numbers_of(features);
    Table table;
    table.rows = features.shape[0];
    // Where there is no example, the other extents may be any numbers.
    table.columns = table.rows > 0 ? std::ssize(numbers) / table.rows : 0;
    table.targets = numbers_of(labels);
    if (std::ssize(table.targets) != table.rows)
        throw UserError(fmt::format("{}: {} targets for the {} examples of {}", labels_path,
                                    table.targets.size(), table.rows, options.path));
    table.layout = "NumPy arrays";
    table.target_name = "target";
    for (i64 i = 0; i < table.columns; ++i) table.feature_names.push_back(fmt::format("{}", i + 1));
    table.features.reserve(numbers.size());
    for (const double number : numbers) table.features.push_back(static_cast<float>(number));
    if (options.classes) {
        std::vector<std::string> classes;
        for (const double target : table.targets) classes.push_back(fmt::format("{}", target));
        table.targets.clear();
        detail::number_classes(classes, table);
    }
    return table;
}

}  // namespace moesaic
