#include "runtime/data/tokenizers/byte_symbols.h"

#include "runtime/data/tokenizers/utf8.h"

namespace moesaic {
namespace {

struct Table {
    std::array<unsigned char, 256> order{};
    std::array<char32_t, 256> symbol{};
    std::array<int, 512> byte_of{};  // -1: the character stands for no byte

    Table() {
        byte_of.fill(-1);
        const auto is_printable = [](int byte) {
            return (0x21 <= byte && byte <= 0x7e) || (0xa1 <= byte && byte <= 0xac) || byte >= 0xae;
        };
        std::size_t next = 0;
        char32_t other = 0x100;
        for (const bool printable : {true, false}) {
            for (int byte = 0; byte < 256; ++byte) {
                if (is_printable(byte) != printable) continue;
                const char32_t character = printable ? static_cast<char32_t>(byte) : other++;
                order[next++] = static_cast<unsigned char>(byte);
                symbol[static_cast<std::size_t>(byte)] = character;
                byte_of[character] = byte;
            }
        }
    }
};

const Table& table() {
    static const Table kTable;
    return kTable;
}

}  // namespace

const std::array<unsigned char, 256>& printable_first_bytes() {
    return table().order;
}

char32_t symbol_of_byte(unsigned char byte) {
    return table().symbol[byte];
}

std::optional<std::string> bytes_of_symbols(std::string_view symbols) {
    std::string bytes;
    while (!symbols.empty()) {
        const std::size_t length = utf8_sequence_bytes(symbols);
        if (length == 0) return std::nullopt;
        const char32_t symbol = first_code_point(symbols, length);
        if (symbol >= table().byte_of.size() || table().byte_of[symbol] < 0) return std::nullopt;
        bytes.push_back(static_cast<char>(static_cast<unsigned char>(table().byte_of[symbol])));
        symbols.remove_prefix(length);
    }
    return bytes;
}

std::string symbols_of_bytes(std::string_view bytes) {
    std::string symbols;
    for (const char byte : bytes)
        append_code_point(symbols, symbol_of_byte(static_cast<unsigned char>(byte)));
    return symbols;
}

}  // namespace moesaic
