// Token ids in a .bin file: llm.c's header and ids, or ids alone as nanoGPT writes them.
#include <bit>
#include <cstring>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/token_file.h"

namespace moesaic {

namespace {

/// llm.c's files begin with 256 int32: magic, version, number of ids. The magic tells the width of the ids
/// (dev/data/data_common.py of llm.c).
struct LlmcKind {
    i32 magic, version;
    IdType type;
    const char* model;
};
constexpr LlmcKind kLlmcKinds[] = {{20240520, 1, IdType::uint16, "gpt-2"},
                                   {20240801, 7, IdType::uint32, "llama-3"}};
constexpr i64 kLlmcHeaderBytes = 256 * 4;

i32 header_value(const MappedFile& file, i64 index) {
    i32 value = 0;
    std::memcpy(&value, file.data() + 4 * index, 4);
    return value;
}

const LlmcKind* llmc_kind(const MappedFile& file) {
    if (file.size() < 4) return nullptr;
    for (const LlmcKind& kind : kLlmcKinds)
        if (header_value(file, 0) == kind.magic) return &kind;
    return nullptr;
}

std::unique_ptr<TokenFile> open_llmc(MappedFile file, const LlmcKind& kind, const TokenFileOptions& options) {
    const auto size = static_cast<i64>(file.size());
    if (size < kLlmcHeaderBytes)
        throw UserError(
            fmt::format("{}: byte {}: ends within llm.c's header of {} bytes; write or copy the "
                        "file again",
                        file.path(), size, kLlmcHeaderBytes));
    if (header_value(file, 1) != kind.version)
        throw UserError(
            fmt::format("{}: byte 4: llm.c's magic {} with version {}, where {} is known; write "
                        "the file with llm.c's present scripts",
                        file.path(), kind.magic, header_value(file, 1), kind.version));
    const i64 count = header_value(file, 2), width = size_of(kind.type);
    if (count < 0 || kLlmcHeaderBytes + count * width != size)
        throw UserError(fmt::format(
            "{}: byte 8: the header promises {} ids of {} bytes, {} bytes follow it; copy the file again",
            file.path(), count, width, size - kLlmcHeaderBytes));
    return make_separated_ids(
        IdArray(std::move(file), kLlmcHeaderBytes, count, kind.type, options.vocabulary),
        options.end_of_document, fmt::format("llm.c ({}), {}", kind.model, name_of(kind.type)));
}

}  // namespace

std::unique_ptr<TokenFile> open_bin_file(const std::string& path, const TokenFileOptions& options) {
    MappedFile file(path);
    if (const LlmcKind* kind = llmc_kind(file)) return open_llmc(std::move(file), *kind, options);
    const IdType type = options.token_type == "uint32" ? IdType::uint32 : IdType::uint16;
    const auto size = static_cast<i64>(file.size());
    if (size % size_of(type) != 0)
        throw UserError(
            fmt::format("{}: byte {}: ends within an id; {} bytes are no whole number of {} ids; "
                        "copy the file again, or set task.data.token_type",
                        path, size, size, name_of(type)));
    return make_separated_ids(IdArray(std::move(file), 0, size / size_of(type), type, options.vocabulary),
                              options.end_of_document,
                              fmt::format("ids without a header (nanoGPT), {}", name_of(type)));
}

}  // namespace moesaic
