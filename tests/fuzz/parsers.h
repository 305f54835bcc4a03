// Every reader of files that others wrote, as a function of bytes: one table for the fuzzer (fuzz/run) and
// for the replay of its corpus (unit/runtime/fuzz_corpus_test.cpp).
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace moesaic::fuzz {

/// A folder in memory where there is such a one, of this process and one parser.
class Folder {
  public:
    explicit Folder(const std::string& parser);
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder();
    /// Writes a file and returns its path.
    [[nodiscard]] std::string write(const std::string& name, std::string_view contents) const;
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

struct Parser {
    const char* name;  ///< as the folder of its corpus
    /// Writes `input` as a file of its format, reads it and all that the file offers.
    void (*read)(std::string_view input, const Folder& folder);
    const char* files;  ///< sources whose edges are counted, as the end of their paths, by spaces
};

/// One line a parser.
[[nodiscard]] std::span<const Parser> parsers();
/// Null where there is none of this name.
[[nodiscard]] const Parser* find_parser(std::string_view name);

/// Lets the parser read, and swallows its refusals, UserError and Error. Whatever else comes out is a defect.
void feed(const Parser& parser, std::string_view input, const Folder& folder);

}  // namespace moesaic::fuzz
