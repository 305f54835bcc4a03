#include "tests/cuda_host/ptx_text.h"

#include <cstdlib>
#include <iterator>
#include <sstream>

namespace cuda_host {

std::string trimmed(const std::string& text) {
    const std::size_t first = text.find_first_not_of(" \t");
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::vector<std::string> words_of(const std::string& text) {
    std::istringstream stream(text);
    return {std::istream_iterator<std::string>(stream), {}};
}

std::vector<std::string> operands_of(const std::string& text) {
    std::vector<std::string> operands(1);
    int depth = 0;
    for (const char c : text) {
        depth += c == '{' || c == '[' || c == '(' ? 1 : c == '}' || c == ']' || c == ')' ? -1 : 0;
        if (c == ',' && depth == 0) {
            operands.emplace_back();
        } else {
            operands.back() += c;
        }
    }
    for (std::string& operand : operands) operand = trimmed(operand);
    if (operands.back().empty()) operands.pop_back();
    return operands;
}

std::string inside(const std::string& bracketed) {
    return bracketed.substr(1, bracketed.size() - 2);
}

/// Of ".b64" or ".f32": 8 or 4.
static std::size_t bytes_of_type(const std::string& type) {
    const std::size_t digits = type.find_first_of("0123456789");
    return static_cast<std::size_t>(std::atoi(type.c_str() + digits)) / 8;
}

Declared declared(const std::string& text) {
    Declared result;
    std::size_t alignment = 0, element = 1;
    const std::vector<std::string> words = words_of(text);
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
        if (words[i] == ".align") {
            alignment = static_cast<std::size_t>(std::atoi(words[++i].c_str()));
        } else if (words[i].find_first_of("0123456789") != std::string::npos) {
            element = bytes_of_type(words[i]);
        }
    }
    const std::string& last = words.back();
    const std::size_t bracket = last.find('[');
    const std::size_t count =
        bracket == std::string::npos ? 1 : static_cast<std::size_t>(std::atoi(last.c_str() + bracket + 1));
    result.name = last.substr(0, bracket);
    result.variable = {0, element * count, alignment ? alignment : element};
    return result;
}

PtxVariable placed(PtxVariable variable, std::size_t& end) {
    variable.offset = (end + variable.alignment - 1) / variable.alignment * variable.alignment;
    end = variable.offset + variable.bytes;
    return variable;
}

}  // namespace cuda_host
