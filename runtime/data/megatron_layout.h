// The layout of Megatron's .idx files, which reading and writing share.
#pragma once

#include <array>

#include "runtime/data/id_array.h"

namespace moesaic {

// Magic, u64 version 1, u8 type, u64 sequences, u64 limits of documents (one more than documents); then i32
// lengths of the sequences, i64 offsets of them in bytes, i64 first sequence of every document and of the
// end. Source: megatron/core/datasets/indexed_dataset.py.
inline constexpr char kMegatronMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
inline constexpr i64 kMegatronHeaderBytes = 34;

struct MegatronType {
    int code;
    IdType type;
};
/// Codes 6 and 7 are floating-point numbers.
inline constexpr std::array<MegatronType, 6> kMegatronTypes{{{1, IdType::uint8},
                                                             {2, IdType::int8},
                                                             {3, IdType::int16},
                                                             {4, IdType::int32},
                                                             {5, IdType::int64},
                                                             {8, IdType::uint16}}};

}  // namespace moesaic
