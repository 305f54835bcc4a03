// Working memory that a thread keeps from call to call, so that nothing is allocated after warm-up.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "runtime/base/types.h"

namespace moesaic {

/// One buffer per purpose and thread: whoever asks for a slot again gets the same memory, so a slot must have
/// one user at a time (a task may run on the thread that waits for it).
enum class ScratchSlot : std::uint8_t {
    packed_columns,
    packed_rows,
    unpacked_panel,
    partial_sums,
    products,
    slices,
    attention,
    choices,
    count
};

/// Uninitialised memory of at least `elements`, aligned to 64 bytes, valid until this thread asks for the
/// slot again. T has to be trivial.
template <class T>
[[nodiscard]] T* scratch(ScratchSlot slot, i64 elements);

namespace detail {
[[nodiscard]] std::byte* scratch_bytes(ScratchSlot slot, i64 bytes);
}

template <class T>
T* scratch(ScratchSlot slot, i64 elements) {
    static_assert(std::is_trivially_copyable_v<T>);
    return reinterpret_cast<T*>(detail::scratch_bytes(slot, elements * static_cast<i64>(sizeof(T))));
}

}  // namespace moesaic
