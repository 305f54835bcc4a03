// Forward: rows of scores in f32, then of probabilities in pairs, kTileSide rows at a time.
#include "runtime/cpu/attention_tiles.h"

#include <algorithm>

#include "runtime/cpu/attention_tile_operands.h"
#include "runtime/cpu/elementwise.h"

namespace moesaic {

namespace {

struct ForwardBuffers {
    i64 length = 0, width = 0;  // in whole tiles: of a sequence, of a head
    BFloat16 *rows = nullptr, *queries = nullptr, *keys = nullptr;
    u32* values = nullptr;  // each twice
    float *scores = nullptr, *result = nullptr;

    /// Elements between rows of scores: no power of two, so that a tile's rows do not fall on one cache set.
    [[nodiscard]] i64 score_stride() const { return length + kAttentionSlack; }

    void place(TileMemory& memory) {
        rows = memory.take<BFloat16>(length * width);
        queries = memory.take<BFloat16>(kTileSide * width);
        keys = memory.take<BFloat16>(length * width);
        values = memory.take<u32>(length * width);
        scores = memory.take<float>(kTileSide * score_stride());
        result = memory.take<float>(kTileSide * width);
    }
};

/// One head of a sequence.
class TileAttention {
  public:
    TileAttention(const SequenceAttention<BFloat16>& attention, i64 sequence, i64 head)
        : shape_(attention.shape),
          key_head_(head / (shape_.heads / shape_.kv_heads)),
          q_(attention.q, shape_, sequence, head, shape_.heads),
          k_(attention.k, shape_, sequence, key_head_, shape_.kv_heads),
          v_(attention.v, shape_, sequence, key_head_, shape_.kv_heads),
          out_(attention.out, shape_, sequence, head, shape_.heads),
          log_sum_exp_(attention.log_sum_exp + head * shape_.rows + sequence * shape_.seq_len),
          first_keys_(attention.first_key, shape_, sequence),
          buffers_(placed(ForwardBuffers{whole_tiles(shape_.seq_len), whole_tiles(shape_.head_dim)})) {}

    void run() const {
        const i64 length = buffers_.length, width = buffers_.width;
        copy_padded(k_, 0, shape_.seq_len, shape_.head_dim, buffers_.rows);
        TilePanels::pack_transposed(buffers_.rows, length, width, buffers_.keys);
        copy_padded(v_, 0, shape_.seq_len, shape_.head_dim, buffers_.rows);
        TilePanels::pack_twice(buffers_.rows, length, width, buffers_.values);
        const TileScope tiles;
        for (i64 first = 0; first < shape_.seq_len; first += kTileSide)
            attend_rows(first, std::min(shape_.seq_len, first + kTileSide));
    }

  private:
    void attend_rows(i64 first, i64 last) const {
        const i64 first_key = shape_.causal ? first_keys_.of_block(first, last, kTileSide) : 0;
        const i64 keys_end = shape_.causal ? whole_tiles(last) : buffers_.length;
        copy_padded(q_, first, last - first, shape_.head_dim, buffers_.queries);
        compute_scores(first_key, keys_end);
        float sums[kTileSide];
        for (i64 i = first; i < last; ++i) {
            const KeyRange keys{shape_.causal ? first_keys_.of(i) - first_key : 0,
                                (shape_.causal ? i + 1 : shape_.seq_len) - first_key, keys_end - first_key};
            log_sum_exp_[i] = kernels_.exponentiate_in_parts(
                buffers_.scores + (i - first) * buffers_.score_stride() + first_key, keys,
                score_scale<float>(shape_), &sums[i - first]);
        }
        mix_values(first_key, keys_end);
        for (i64 i = 0; i < last - first; ++i)
            rows_.multiply_by(buffers_.result + i * buffers_.width, shape_.head_dim, 1 / sums[i]);
        cpu::round_rows({last - first, shape_.head_dim, buffers_.width, out_.stride}, buffers_.result,
                        out_.row(first));
    }
    void compute_scores(i64 first_key, i64 keys_end) const {
        SquareProduct product;
        product.a = pairs_of(buffers_.queries);
        product.a_row_stride = product.pairs = buffers_.width / 2;
        product.c_row_stride = buffers_.score_stride();
        for (i64 key = first_key; key < keys_end; key += kTileSide) {
            product.panel = pairs_of(buffers_.keys + key * buffers_.width);
            product.c = buffers_.scores + key;
            product.run();
        }
    }
    void mix_values(i64 first_key, i64 keys_end) const {
        SquareProduct product;
        product.a = buffers_.scores + first_key;
        product.a_row_stride = buffers_.score_stride();
        product.pairs = keys_end - first_key;
        product.c_row_stride = buffers_.width;
        for (i64 column = 0; column < buffers_.width; column += kTileSide) {
            product.panel = reinterpret_cast<const float*>(buffers_.values + column * buffers_.length +
                                                           first_key * kTileSide);
            product.c = buffers_.result + column;
            product.run();
        }
    }

    const AttentionShape& shape_;
    i64 key_head_;
    HeadRows<const BFloat16> q_, k_, v_;
    HeadRows<BFloat16> out_;
    float* log_sum_exp_;
    FirstKeys first_keys_;
    ForwardBuffers buffers_;
    const AttentionKernels<float>& rows_ = attention_kernels<float>();
    const TileAttentionKernels& kernels_ = tile_attention_kernels();
};

}  // namespace

void attend_by_tiles(const SequenceAttention<BFloat16>& attention, i64 sequence, i64 head) {
    TileAttention(attention, sequence, head).run();
}

}  // namespace moesaic
