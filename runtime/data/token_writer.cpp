// One class a format for the file being written, one that cuts a stream of documents into such files.
#include "runtime/data/token_writer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/base/atomic_file.h"
#include "runtime/base/error.h"
#include "runtime/data/megatron_layout.h"
#include "runtime/data/npy.h"

namespace moesaic {

namespace {

constexpr std::size_t kMostShards = 500;  // all stay open until the end, so that all appear or none

/// `value` as it lies in a little-endian file.
template <class Integer>
std::string_view bytes_of(const Integer& value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// A file of ids that grows; formats add what stands around the ids.
class Shard {
  public:
    Shard(const std::string& path, IdType type) : file_(path), type_(type) {}
    Shard(const Shard&) = delete;
    Shard& operator=(const Shard&) = delete;
    virtual ~Shard() = default;

    void add(std::span<const i32> ids) {
        buffer_.clear();
        for (const i32 id : ids) {
            if (type_ == IdType::uint16) {
                buffer_ += bytes_of(static_cast<std::uint16_t>(id));
            } else {
                buffer_ += bytes_of(id);
            }
        }
        file_.write(buffer_);
        tokens_ += std::ssize(ids);
    }
    virtual void end_document() {}
    /// Writes what depends on the number of ids.
    virtual void complete() {}
    virtual void commit() { file_.commit(); }

    [[nodiscard]] i64 tokens() const { return tokens_; }
    [[nodiscard]] virtual i64 bytes() const { return file_.bytes_written(); }
    [[nodiscard]] virtual std::vector<std::string> files() const { return {file_.path()}; }

  protected:
    AtomicFile& file() { return file_; }
    [[nodiscard]] IdType type() const { return type_; }

  private:
    AtomicFile file_;
    IdType type_;
    i64 tokens_ = 0;
    std::string buffer_;
};

class LlmcShard final : public Shard {
  public:
    LlmcShard(const std::string& path, IdType type) : Shard(path, type) {
        const bool narrow = type == IdType::uint16;
        std::vector<i32> header(256);
        header[0] = narrow ? 20240520 : 20240801;
        header[1] = narrow ? 1 : 7;
        file().write(header.data(), header.size() * sizeof(i32));
    }
    void complete() override {
        if (tokens() > std::numeric_limits<i32>::max())
            throw UserError(
                fmt::format("{}: {} tokens are more than llm.c's header can count; use a smaller "
                            "--shard-tokens",
                            file().path(), tokens()));
        file().rewrite(8, bytes_of(static_cast<i32>(tokens())));
    }
};

class NpyShard final : public Shard {
  public:
    NpyShard(const std::string& path, IdType type) : Shard(path, type) { file().write(header()); }
    void complete() override { file().rewrite(0, header()); }

  private:
    /// 128 bytes whatever the number of ids.
    std::string header() { return npy_header(type() == IdType::uint16 ? "<u2" : "<i4", {tokens()}); }
};

class MegatronShard final : public Shard {
  public:
    MegatronShard(const std::string& prefix, IdType type)
        : Shard(prefix + ".bin", type), index_(prefix + ".idx") {}

    void end_document() override {
        const i64 length = tokens() - ended_;
        if (length > std::numeric_limits<i32>::max())
            throw UserError(
                fmt::format("{}: a document of {} tokens is longer than Megatron's index can say; "
                            "split it",
                            file().path(), length));
        lengths_.push_back(static_cast<i32>(length));
        ended_ = tokens();
    }
    void complete() override {
        const auto sequences = static_cast<i64>(lengths_.size());
        const auto* const kind = std::find_if(kMegatronTypes.begin(), kMegatronTypes.end(),
                                              [this](const MegatronType& one) { return one.type == type(); });
        index_.write(std::string_view(kMegatronMagic, sizeof kMegatronMagic));
        index_.write(bytes_of(u64{1}));
        index_.write(bytes_of(static_cast<std::uint8_t>(kind->code)));
        index_.write(bytes_of(static_cast<u64>(sequences)));
        index_.write(bytes_of(static_cast<u64>(sequences + 1)));
        index_.write(lengths_.data(), lengths_.size() * sizeof(i32));
        i64 offset = 0;
        write_each(sequences, [&](i64 i) {
            return std::exchange(offset,
                                 offset + i64{lengths_[static_cast<std::size_t>(i)]} * size_of(type()));
        });
        write_each(sequences + 1, [](i64 i) { return i; });  // a sequence is a document
    }
    void commit() override {
        Shard::commit();
        index_.commit();  // last: a pair without an index is not taken for one
    }
    [[nodiscard]] i64 bytes() const override { return Shard::bytes() + index_.bytes_written(); }
    [[nodiscard]] std::vector<std::string> files() const override {
        return {Shard::files().front(), index_.path()};
    }

  private:
    template <class Value>
    void write_each(i64 count, const Value& value) {
        std::vector<i64> block;
        for (i64 i = 0; i < count; ++i) {
            block.push_back(value(i));
            if (block.size() < 8192 && i + 1 < count) continue;
            index_.write(block.data(), block.size() * sizeof(i64));
            block.clear();
        }
    }

    AtomicFile index_;
    std::vector<i32> lengths_;
    i64 ended_ = 0;
};

struct OutputFormat {
    const char* name;
    const char* ending;
    i64 narrow_below;  ///< vocabularies below this take uint16
    IdType wide;
    bool cuts_documents;  ///< at the end of a shard
    i64 shard_tokens;     ///< where the caller names none
    std::unique_ptr<Shard> (*open)(const std::string& prefix, IdType type);
};

template <class Kind>
std::unique_ptr<Shard> open_bin(const std::string& prefix, IdType type) {
    return std::make_unique<Kind>(prefix + ".bin", type);
}

/// Limits of uint16: Megatron's is its own (DType.optimal_dtype). llm.c's scripts cut at 10^8 tokens.
const OutputFormat& output_format(const std::string& name) {
    static const OutputFormat kFormats[] = {
        {"megatron", ".idx", 65500, IdType::int32, false, 0,
         [](const std::string& prefix, IdType type) -> std::unique_ptr<Shard> {
             return std::make_unique<MegatronShard>(prefix, type);
         }},
        {"llmc", ".bin", 65537, IdType::uint32, true, 100'000'000, open_bin<LlmcShard>},
        {"nanogpt", ".bin", 65537, IdType::uint32, true, 0, open_bin<Shard>},
        {"npy", ".npy", 65537, IdType::int32, true, 0,
         [](const std::string& prefix, IdType type) -> std::unique_ptr<Shard> {
             return std::make_unique<NpyShard>(prefix + ".npy", type);
         }}};
    for (const OutputFormat& format : kFormats)
        if (name == format.name) return format;
    throw UserError(
        fmt::format("--to {}: there is no such format; use megatron, llmc, nanogpt or npy", name));
}

class ShardedWriter final : public TokenWriter {
  public:
    ShardedWriter(const OutputFormat& format, const TokenWriterOptions& options)
        : format_(format),
          options_(options),
          type_(id_type_of(options.vocabulary, format.narrow_below, format.wide)),
          shard_tokens_(options.shard_tokens > 0 ? options.shard_tokens : format.shard_tokens) {}

    void add(std::span<const i32> tokens) override {
        if (tokens.empty()) return;
        last_ = tokens.back();
        tokens_ += std::ssize(tokens);
        while (!tokens.empty()) {
            Shard& shard = current();
            std::size_t count = tokens.size();
            if (format_.cuts_documents && shard_tokens_ > 0)
                count = std::min(count, static_cast<std::size_t>(shard_tokens_ - shard.tokens()));
            shard.add(tokens.first(count));
            tokens = tokens.subspan(count);
            in_document_ = true;
        }
    }
    void end_document() override {
        if (options_.end_of_document && (!in_document_ || last_ != *options_.end_of_document))
            add({&*options_.end_of_document, 1});
        if (!in_document_) return;  // an empty document
        shards_.back()->end_document();
        in_document_ = false;
        ++documents_;
    }
    [[nodiscard]] Written finish() override {
        MOESAIC_ASSERT(!in_document_, "{} tokens in a document without end", tokens_);
        if (shards_.empty()) throw UserError("the input has no tokens; name files with text or token ids");
        Written written;
        for (const auto& shard : shards_) shard->complete();
        for (const auto& shard : shards_) {
            shard->commit();
            written.bytes += shard->bytes();
            for (const std::string& file : shard->files()) written.files.push_back(file);
        }
        written.tokens = tokens_;
        written.documents = documents_;
        const std::string_view format = format_.name;
        written.keys.emplace_back(
            "path", numbered() ? options_.prefix + "_*" + format_.ending
                               : options_.prefix + (format == "megatron" ? "" : format_.ending));
        if (format == "nanogpt" && type_ == IdType::uint32) written.keys.emplace_back("token_type", "uint32");
        return written;
    }
    [[nodiscard]] i64 tokens() const override { return tokens_; }
    [[nodiscard]] i64 documents() const override { return documents_; }

  private:
    [[nodiscard]] bool numbered() const { return shard_tokens_ > 0; }
    Shard& current() {
        const bool full = numbered() && !shards_.empty() && shards_.back()->tokens() >= shard_tokens_ &&
                          (format_.cuts_documents || !in_document_);
        if (shards_.empty() || full) {
            if (shards_.size() == kMostShards)
                throw UserError(fmt::format("more than {} shards; use a larger --shard-tokens than {}",
                                            kMostShards, shard_tokens_));
            const std::string number = numbered() ? fmt::format("_{:06}", shards_.size() + 1) : "";
            shards_.push_back(format_.open(options_.prefix + number, type_));
        }
        return *shards_.back();
    }

    const OutputFormat& format_;
    TokenWriterOptions options_;
    IdType type_;
    i64 shard_tokens_;
    std::vector<std::unique_ptr<Shard>> shards_;
    i64 tokens_ = 0, documents_ = 0;
    i32 last_ = -1;
    bool in_document_ = false;
};

}  // namespace

std::unique_ptr<TokenWriter> make_token_writer(const std::string& format, const TokenWriterOptions& options) {
    return std::make_unique<ShardedWriter>(output_format(format), options);
}

}  // namespace moesaic
