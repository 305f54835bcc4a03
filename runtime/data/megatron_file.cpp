// Megatron's pair of files: ids in PREFIX.bin, lengths of sequences and limits of documents in PREFIX.idx.
#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/data/megatron_layout.h"
#include "runtime/data/token_file.h"

namespace moesaic {

namespace {

/// The arrays of an index, read where they lie in the map: the header's 34 bytes leave them unaligned.
class Index {
  public:
    explicit Index(const std::string& path) : file_(path) {
        const auto size = static_cast<i64>(file_.size());
        if (size < kMegatronHeaderBytes)
            fail(size, fmt::format("ends within the header of {} bytes", kMegatronHeaderBytes));
        if (std::memcmp(file_.data(), kMegatronMagic, sizeof kMegatronMagic) != 0)
            fail(0, "is no index of Megatron (MMIDIDX)",
                 "name token files of Megatron; IDX images are not in this version");
        if (const u64 version = value<u64>(9); version != 1)
            fail(9, fmt::format("version {}, where 1 is known", version));
        const auto code = static_cast<int>(value<std::uint8_t>(17));
        const auto* const type = std::find_if(kMegatronTypes.begin(), kMegatronTypes.end(),
                                              [&](const MegatronType& one) { return one.code == code; });
        if (type == kMegatronTypes.end())
            fail(17, fmt::format("type {} is none of Megatron's integer types", code),
                 "floating-point numbers are no token ids");
        type_ = type->type;
        check_sizes();
    }

    [[nodiscard]] IdType type() const { return type_; }
    [[nodiscard]] i64 sequences() const { return sequences_; }
    [[nodiscard]] i64 documents() const { return limits_ - 1; }
    [[nodiscard]] i64 length(i64 sequence) const { return value<i32>(kMegatronHeaderBytes + 4 * sequence); }
    /// Bytes in the .bin before the sequence.
    [[nodiscard]] i64 offset(i64 sequence) const { return value<i64>(offsets_at() + 8 * sequence); }
    /// The first sequence of the document; of document number documents(): the end.
    [[nodiscard]] i64 first_sequence(i64 document) const { return value<i64>(limits_at() + 8 * document); }

    /// Checks every entry against a .bin of that size.
    void check_entries(const std::string& bin, i64 bin_bytes) const {
        i64 end = 0;
        for (i64 sequence = 0; sequence < sequences_; ++sequence) {
            if (length(sequence) < 0)
                fail(kMegatronHeaderBytes + 4 * sequence,
                     fmt::format("sequence {} has length {}", sequence, length(sequence)));
            if (offset(sequence) != end)
                fail(offsets_at() + 8 * sequence,
                     fmt::format("sequence {} begins at byte {} of the .bin, the one before it ends at {}: "
                                 "they overlap or leave a gap",
                                 sequence, offset(sequence), end));
            end += length(sequence) * size_of(type_);
            if (end > bin_bytes)
                fail(kMegatronHeaderBytes + 4 * sequence,
                     fmt::format("sequence {} ends at byte {} of {}, which has {}", sequence, end, bin,
                                 bin_bytes));
        }
        if (end != bin_bytes)
            throw UserError(
                fmt::format("{}: byte {}: the sequences of {} end here, the file has {} bytes; {}", bin, end,
                            file_.path(), bin_bytes, kRemedy));
        i64 before = 0;
        for (i64 document = 0; document < limits_; ++document) {
            const i64 limit = first_sequence(document);
            const bool good = document == 0 ? limit == 0 : before <= limit && limit <= sequences_;
            if (!good)
                fail(limits_at() + 8 * document,
                     fmt::format("document {} begins with sequence {} of {}, the one before it with {}",
                                 document, limit, sequences_, before));
            before = limit;
        }
        if (before != sequences_)
            fail(limits_at() + 8 * (limits_ - 1),
                 fmt::format("the documents end with sequence {} of {}", before, sequences_));
    }

  private:
    static constexpr const char* kRemedy =
        "make the pair again, or copy both files again: .bin and .idx belong together";

    template <class Integer>
    [[nodiscard]] Integer value(i64 at) const {
        Integer value;
        std::memcpy(&value, file_.data() + at, sizeof value);
        return value;
    }
    [[noreturn]] void fail(i64 byte, const std::string& what, const char* remedy = kRemedy) const {
        throw UserError(fmt::format("{}: byte {}: {}; {}", file_.path(), byte, what, remedy));
    }
    [[nodiscard]] i64 offsets_at() const { return kMegatronHeaderBytes + 4 * sequences_; }
    [[nodiscard]] i64 limits_at() const { return kMegatronHeaderBytes + 12 * sequences_; }

    void check_sizes() {
        const i64 left = static_cast<i64>(file_.size()) - kMegatronHeaderBytes;
        const u64 sequences = value<u64>(18), limits = value<u64>(26);
        // Compared by division: the counts may be anything.
        if (sequences > static_cast<u64>(left) / 12)
            fail(18, fmt::format("{} sequences take more than the {} bytes that follow", sequences, left));
        sequences_ = static_cast<i64>(sequences);
        const i64 for_limits = left - 12 * sequences_;
        if (limits > static_cast<u64>(for_limits) / 8)
            fail(26, fmt::format("{} limits of documents take more than the {} bytes left to them", limits,
                                 for_limits));
        if (limits == 0) fail(26, "no limit of a document; an index has one more than documents");
        limits_ = static_cast<i64>(limits);
        // Multimodal data add a byte to each sequence, its mode, which is not needed here.
        const i64 rest = for_limits - 8 * limits_;
        if (rest != 0 && rest != sequences_)
            fail(static_cast<i64>(file_.size()) - rest, fmt::format("{} bytes too many", rest));
    }

    MappedFile file_;
    IdType type_ = IdType::int32;
    i64 sequences_ = 0, limits_ = 0;
};

class MegatronPair final : public TokenFile {
  public:
    MegatronPair(Index index, IdArray ids) : index_(std::move(index)), ids_(std::move(ids)) {}

    [[nodiscard]] i64 tokens() const override { return ids_.count(); }
    void read(i64 first, i64 count, i32* out) const override { ids_.read(first, count, out); }
    void document_starts(i64 first, i64 count, std::vector<i64>& starts) const override {
        i64 low = 0, high = index_.documents();  // the first document that begins at `first` or behind it
        while (low < high) {
            const i64 middle = low + (high - low) / 2;
            (first_token(middle) < first ? low = middle + 1 : high = middle);
        }
        for (i64 document = low; document < index_.documents(); ++document) {
            const i64 start = first_token(document);
            if (start >= first + count) return;
            const bool empty = first_token(document + 1) == start;
            if (!empty) starts.push_back(start);
        }
    }
    [[nodiscard]] std::string documents_by() const override {
        return fmt::format("{} documents of {} sequences in the index", index_.documents(),
                           index_.sequences());
    }
    [[nodiscard]] std::string layout() const override {
        return fmt::format("Megatron pair, {}", name_of(ids_.type()));
    }

  private:
    [[nodiscard]] i64 first_token(i64 document) const {
        const i64 sequence = index_.first_sequence(document);
        return sequence == index_.sequences() ? tokens() : index_.offset(sequence) / size_of(ids_.type());
    }

    Index index_;
    IdArray ids_;
};

}  // namespace

std::unique_ptr<TokenFile> open_megatron_pair(const std::string& prefix, const TokenFileOptions& options) {
    for (const char* ending : {".idx", ".bin"}) {
        std::error_code ignored;
        if (!std::filesystem::exists(prefix + ending, ignored))
            throw UserError(fmt::format("{0}{1}: no such file; Megatron's data are pairs {0}.bin and {0}.idx",
                                        prefix, ending));
    }
    Index index(prefix + ".idx");
    MappedFile bin(prefix + ".bin");
    const auto bytes = static_cast<i64>(bin.size());
    index.check_entries(bin.path(), bytes);
    const IdType type = index.type();
    return std::make_unique<MegatronPair>(
        std::move(index), IdArray(std::move(bin), 0, bytes / size_of(type), type, options.vocabulary));
}

}  // namespace moesaic
