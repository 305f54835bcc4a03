// Reading the text of PTX.
#pragma once

#include <string>
#include <vector>

#include "tests/cuda_host/ptx_thread.h"

namespace cuda_host {

[[nodiscard]] std::string trimmed(const std::string& text);
[[nodiscard]] std::vector<std::string> words_of(const std::string& text);
/// Split at the commas outside of brackets.
[[nodiscard]] std::vector<std::string> operands_of(const std::string& text);
/// Without the first and the last character.
[[nodiscard]] std::string inside(const std::string& bracketed);

struct Declared {
    std::string name;
    PtxVariable variable;
};
/// What a declaration like ".param .align 8 .b8 name[16]" says.
[[nodiscard]] Declared declared(const std::string& text);
/// The variable after those that end at `end`, which moves.
[[nodiscard]] PtxVariable placed(PtxVariable variable, std::size_t& end);

}  // namespace cuda_host
