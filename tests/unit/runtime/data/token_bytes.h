// Token files as strings of bytes, written out by hand for tests.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic::testing_support {

/// `value` in `bytes` little-endian bytes.
inline std::string little(i64 value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i)
        text.push_back(static_cast<char>(static_cast<u64>(value) >> (8 * i) & 0xFF));
    return text;
}

inline std::string ids(const std::vector<i64>& values, int bytes) {
    std::string text;
    for (const i64 value : values) text += little(value, bytes);
    return text;
}

inline std::string llmc_file(const std::vector<i64>& values, int bytes) {
    const bool narrow = bytes == 2;
    std::string header = little(narrow ? 20240520 : 20240801, 4) + little(narrow ? 1 : 7, 4) +
                         little(static_cast<i64>(values.size()), 4);
    header.resize(1024, '\0');
    return header + ids(values, bytes);
}

/// What a Megatron index says; every field may be spoilt.
struct MegatronIndex {
    std::string magic{"MMIDIDX\0\0", 9};
    i64 version = 1, code = 8;
    std::vector<i64> lengths, offsets, limits;
    i64 sequences = -1, limit_count = -1;  ///< -1: as many as there are
    [[nodiscard]] std::string bytes() const {
        const auto count = [](i64 given, const std::vector<i64>& values) {
            return given == -1 ? static_cast<i64>(values.size()) : given;
        };
        return magic + little(version, 8) + little(code, 1) + little(count(sequences, lengths), 8) +
               little(count(limit_count, limits), 8) + ids(lengths, 4) + ids(offsets, 8) + ids(limits, 8);
    }
};

/// The index of sequences of those lengths, each a document, ids of `width` bytes with type `code`.
inline MegatronIndex megatron_index(const std::vector<i64>& lengths, i64 width, i64 code) {
    MegatronIndex index;
    index.code = code;
    index.lengths = lengths;
    i64 offset = 0;
    for (std::size_t i = 0; i <= lengths.size(); ++i) {
        index.limits.push_back(static_cast<i64>(i));
        if (i == lengths.size()) break;
        index.offsets.push_back(offset);
        offset += lengths[i] * width;
    }
    return index;
}

inline std::string npy_file(const std::string& dictionary, const std::string& data, int version = 1) {
    const auto length = static_cast<i64>(dictionary.size());
    return std::string("\x93NUMPY", 6) + little(version, 1) + little(0, 1) +
           little(length, version == 1 ? 2 : 4) + dictionary + data;
}

inline std::string npy_dictionary(const std::string& descr, const std::string& shape,
                                  const std::string& fortran = "False") {
    return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }   \n";
}

}  // namespace moesaic::testing_support
