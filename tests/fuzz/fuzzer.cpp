// LibFuzzer's entry point. The environment names the parser: MOESAIC_FUZZ_PARSER=csv build/fuzz/fuzz_parsers
// FOLDER; without one the table is printed, with the sources that belong to each.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/fuzz/parsers.h"

namespace {
const moesaic::fuzz::Parser* parser = nullptr;
std::unique_ptr<moesaic::fuzz::Folder> folder;
}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
    const char* const name = std::getenv("MOESAIC_FUZZ_PARSER");
    parser = moesaic::fuzz::find_parser(name ? name : "");
    if (parser) {
        folder = std::make_unique<moesaic::fuzz::Folder>(parser->name);
        return 0;
    }
    for (const auto& one : moesaic::fuzz::parsers()) std::printf("%s %s\n", one.name, one.files);
    std::exit(name ? 2 : 0);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    moesaic::fuzz::feed(*parser, {reinterpret_cast<const char*>(data), size}, *folder);
    return 0;
}
