// Backward: scores stand transposed, keys by queries, so that what the softmax leaves is an operand of all
// three products that follow, without a transposition.
#include <algorithm>
#include <cstring>

#include "runtime/cpu/attention_tile_operands.h"
#include "runtime/cpu/attention_tiles.h"
#include "runtime/cpu/elementwise.h"

namespace moesaic {

namespace {

/// Keys, and queries at most, whose probabilities exist at a time: with these the cache of a core holds them.
constexpr i64 kKeysTogether = 4 * kTileSide, kQueriesTogether = 16 * kTileSide;

struct Range {
    i64 first = 0, last = 0;
    [[nodiscard]] i64 size() const { return last - first; }
};
Range common(Range left, Range right) {
    return {std::max(left.first, right.first), std::min(left.last, right.last)};
}

struct BackwardBuffers {
    i64 length = 0, width = 0;                                     // in whole tiles: of a sequence, of a head
    BFloat16 *rows = nullptr, *keys = nullptr, *values = nullptr;  // [length, width]
    float* keys_transposed = nullptr;                              // pairs [width, key_stride()]
    BFloat16 *queries = nullptr, *d_outs = nullptr;                // panels, pairs from row to row
    BFloat16 *queries_transposed = nullptr, *d_outs_transposed = nullptr;  // panels, pairs within a row
    float *d_keys = nullptr, *d_values = nullptr;                          // [length, width]
    float* d_queries = nullptr;                                            // [width, query_stride()]
    float *scores = nullptr, *d_probabilities = nullptr;                   // a tile, keys by queries
    BFloat16 *probabilities = nullptr, *d_scores = nullptr;                // [kKeysTogether, block_stride()]
    float* d_score_pairs = nullptr;                  // panels: pairs of keys by kTileSide queries
    float *log_sum_exp = nullptr, *delta = nullptr;  // [length], zeros beyond the sequence
    i32 *first_key = nullptr, *last_key = nullptr;   // [length] the keys that a query reads
    i64* first_key_of_tile = nullptr;                // of all queries from the tile on

    // Between rows, no powers of two, so that a tile's rows do not fall on one cache set.
    [[nodiscard]] i64 key_stride() const { return length / 2 + kTileValues; }
    [[nodiscard]] i64 query_stride() const { return length + kTileValues; }
    [[nodiscard]] i64 block_stride() const { return std::min(length, kQueriesTogether) + kTileSide; }

    void place(TileMemory& memory) {
        for (BFloat16** part :
             {&rows, &keys, &values, &queries, &d_outs, &queries_transposed, &d_outs_transposed})
            *part = memory.take<BFloat16>(length * width);
        keys_transposed = memory.take<float>(width * key_stride());
        for (float** part : {&d_keys, &d_values}) *part = memory.take<float>(length * width);
        d_queries = memory.take<float>(width * query_stride());
        for (float** part : {&scores, &d_probabilities}) *part = memory.take<float>(kTileSide * kTileSide);
        for (BFloat16** part : {&probabilities, &d_scores})
            *part = memory.take<BFloat16>(kKeysTogether * block_stride());
        d_score_pairs = memory.take<float>(kKeysTogether / 2 * std::min(length, kQueriesTogether));
        for (float** part : {&log_sum_exp, &delta}) *part = memory.take<float>(length);
        for (i32** part : {&first_key, &last_key}) *part = memory.take<i32>(length);
        first_key_of_tile = memory.take<i64>(length / kTileSide);
    }
};

/// One key head of a sequence.
class TileAttentionBackward {
  public:
    TileAttentionBackward(const SequenceAttentionGrad<BFloat16>& grad, i64 sequence, i64 key_head)
        : grad_(grad),
          shape_(grad.shape),
          sequence_(sequence),
          key_head_(key_head),
          buffers_(placed(BackwardBuffers{whole_tiles(shape_.seq_len), whole_tiles(shape_.head_dim)})) {}

    void run() const {
        find_keys();
        pack_keys();
        const auto bytes = static_cast<std::size_t>(buffers_.length * buffers_.width) * sizeof(float);
        std::memset(buffers_.d_keys, 0, bytes);
        std::memset(buffers_.d_values, 0, bytes);
        const TileScope tiles;
        const i64 group = shape_.heads / shape_.kv_heads, length = buffers_.length;
        for (i64 head = key_head_ * group; head < (key_head_ + 1) * group; ++head) {
            pack_head(head);
            for (i64 key = 0; key < length; key += kKeysTogether)
                for (i64 query = 0; query < length; query += kQueriesTogether)
                    run_block({key, std::min(length, key + kKeysTogether)},
                              {query, std::min(length, query + kQueriesTogether)});
            finish_queries(head);
        }
        finish_keys(buffers_.d_keys, grad_.dk);
        finish_keys(buffers_.d_values, grad_.dv);
    }

  private:
    void find_keys() const {
        const FirstKeys first_keys(grad_.first_key, shape_, sequence_);
        for (i64 query = 0; query < buffers_.length; ++query) {
            const bool masked = shape_.causal && query < shape_.seq_len;
            buffers_.first_key[query] = masked ? static_cast<i32>(first_keys.of(query)) : 0;
            buffers_.last_key[query] = static_cast<i32>(shape_.causal ? query : shape_.seq_len - 1);
        }
        i64 lowest = buffers_.length;
        for (i64 first = buffers_.length - kTileSide; first >= 0; first -= kTileSide) {
            const i64 last = std::min(shape_.seq_len, first + kTileSide);
            lowest = std::min(lowest, shape_.causal ? first_keys.of_block(first, last, kTileSide) : 0);
            buffers_.first_key_of_tile[first / kTileSide] = lowest;
        }
    }
    void pack_keys() const {
        const i64 length = buffers_.length, width = buffers_.width;
        copy_padded(key_rows(grad_.k), 0, shape_.seq_len, shape_.head_dim, buffers_.keys);
        copy_padded(key_rows(grad_.v), 0, shape_.seq_len, shape_.head_dim, buffers_.values);
        gemm_kernels<float>().narrow.transpose_pair_rows({buffers_.keys, 1, width}, width, length,
                                                         buffers_.keys_transposed, buffers_.key_stride());
    }
    void pack_head(i64 head) const {
        const i64 length = buffers_.length, width = buffers_.width, count = shape_.seq_len;
        BFloat16* const rows = buffers_.rows;
        copy_padded(query_rows(grad_.q, head), 0, count, shape_.head_dim, rows);
        TilePanels::pack_rows(rows, length, width, buffers_.queries);
        TilePanels::pack_transposed(rows, length, width, buffers_.queries_transposed);
        copy_padded(query_rows(grad_.d_out, head), 0, count, shape_.head_dim, rows);
        TilePanels::pack_rows(rows, length, width, buffers_.d_outs);
        TilePanels::pack_transposed(rows, length, width, buffers_.d_outs_transposed);
        const HeadRows<const BFloat16> out = query_rows(grad_.out, head);
        const float* const log_sum_exp = grad_.log_sum_exp + head * shape_.rows + sequence_ * shape_.seq_len;
        for (i64 i = 0; i < length; ++i) {
            buffers_.log_sum_exp[i] = i < count ? log_sum_exp[i] : 0;
            buffers_.delta[i] = i < count ? kernels_.dot(rows + i * width, out.row(i), shape_.head_dim) : 0;
        }
        std::memset(buffers_.d_queries, 0,
                    static_cast<std::size_t>(width * buffers_.query_stride()) * sizeof(float));
    }

    /// The queries that read a tile of keys, the keys that a tile of queries reads; in whole tiles.
    [[nodiscard]] Range readers_of(i64 key) const {
        i64 last = buffers_.length;
        while (buffers_.first_key_of_tile[last / kTileSide - 1] > key) last -= kTileSide;
        return {shape_.causal ? key : 0, last};
    }
    [[nodiscard]] Range keys_of(i64 query) const {
        return {buffers_.first_key_of_tile[query / kTileSide],
                shape_.causal ? query + kTileSide : buffers_.length};
    }

    /// With P the probabilities: dP = dO·Vᵀ, dS = scale·P∘(dP - rowsum(dO∘O)), dQ = dS·K, dK += dSᵀ·Q,
    /// dV += Pᵀ·dO (Dao et al. 2022, appendix B.2).
    void run_block(Range keys, Range queries) const {
        for (i64 query = queries.first; query < queries.last; query += kTileSide) {
            const Range read = common(keys, keys_of(query));
            for (i64 key = read.first; key < read.last; key += kTileSide)
                compute_scores(key, query, {key - keys.first, query - queries.first});
            if (read.size() > 0) add_to_queries(read, keys.first, query, query - queries.first);
        }
        for (i64 key = keys.first; key < keys.last; key += kTileSide) {
            const Range readers = common(queries, readers_of(key));
            if (readers.size() <= 0) continue;
            const i64 place = (key - keys.first) * buffers_.block_stride() + readers.first - queries.first;
            add_to_keys(buffers_.probabilities + place, key, readers, buffers_.d_outs, buffers_.d_values);
            add_to_keys(buffers_.d_scores + place, key, readers, buffers_.queries, buffers_.d_keys);
        }
    }

    /// Where a tile stands in its block.
    struct TilePlace {
        i64 key, query;
    };
    void compute_scores(i64 key, i64 query, TilePlace place) const {
        const i64 width = buffers_.width;
        SquareProduct product;
        product.pairs = product.a_row_stride = width / 2;
        product.a = pairs_of(buffers_.keys + key * width);
        product.panel = pairs_of(buffers_.queries_transposed + query * width);
        product.c = buffers_.scores;
        product.run();
        product.a = pairs_of(buffers_.values + key * width);
        product.panel = pairs_of(buffers_.d_outs_transposed + query * width);
        product.c = buffers_.d_probabilities;
        product.run();

        const i64 in_block = place.key * buffers_.block_stride() + place.query;
        TileSoftmax softmax;
        softmax.scores = buffers_.scores;
        softmax.d_probabilities = buffers_.d_probabilities;
        softmax.key = key;
        softmax.first_key = buffers_.first_key + query;
        softmax.last_key = buffers_.last_key + query;
        softmax.log_sum_exp = buffers_.log_sum_exp + query;
        softmax.delta = buffers_.delta + query;
        softmax.scale = score_scale<float>(shape_);
        softmax.probabilities = buffers_.probabilities + in_block;
        softmax.d_scores = buffers_.d_scores + in_block;
        softmax.row_stride = buffers_.block_stride();
        softmax.d_score_pairs = score_pairs(place.key, place.query);
        kernels_.softmax_backward(softmax);
    }
    [[nodiscard]] float* score_pairs(i64 key_in_block, i64 query_in_block) const {
        return buffers_.d_score_pairs + query_in_block * (kKeysTogether / 2) + key_in_block / 2 * kTileSide;
    }
    /// dQᵀ += Kᵀ · dSᵀ of a tile of queries.
    void add_to_queries(Range keys, i64 first_key_of_block, i64 query, i64 query_in_block) const {
        SquareProduct product;
        product.a_row_stride = buffers_.key_stride();
        product.pairs = keys.size() / 2;
        product.panel = score_pairs(keys.first - first_key_of_block, query_in_block);
        product.c_row_stride = buffers_.query_stride();
        product.accumulate = true;
        for (i64 column = 0; column < buffers_.width; column += kTileSide) {
            product.a = buffers_.keys_transposed + column * buffers_.key_stride() + keys.first / 2;
            product.c = buffers_.d_queries + column * buffers_.query_stride() + query;
            product.run();
        }
    }
    /// Adds a tile of keys, left [kTileSide, readers] · right from the first reader on.
    void add_to_keys(const BFloat16* left, i64 key, Range readers, const BFloat16* right, float* to) const {
        SquareProduct product;
        product.a = pairs_of(left);
        product.a_row_stride = buffers_.block_stride() / 2;
        product.pairs = readers.size() / 2;
        product.c_row_stride = buffers_.width;
        product.accumulate = true;
        for (i64 column = 0; column < buffers_.width; column += kTileSide) {
            product.panel = pairs_of(right + column * buffers_.length + readers.first * kTileSide);
            product.c = to + key * buffers_.width + column;
            product.run();
        }
    }

    void finish_queries(i64 head) const {
        const HeadRows<BFloat16> dq(grad_.dq, shape_, sequence_, head, shape_.heads);
        const i64 length = buffers_.length, width = buffers_.width;
        BFloat16 *const transposed = buffers_.rows, *const rows = buffers_.queries;  // used no more
        cpu::round_rows({width, length, buffers_.query_stride(), length}, buffers_.d_queries, transposed);
        gemm_kernels<float>().narrow.transpose_pair_rows({transposed, 1, length}, length, width,
                                                         reinterpret_cast<float*>(rows), width / 2);
        for (i64 i = 0; i < shape_.seq_len; ++i)
            std::memcpy(dq.row(i), rows + i * width,
                        static_cast<std::size_t>(shape_.head_dim) * sizeof(BFloat16));
    }
    void finish_keys(const float* from, BFloat16* matrix) const {
        const HeadRows<BFloat16> to(matrix, shape_, sequence_, key_head_, shape_.kv_heads);
        cpu::round_rows({shape_.seq_len, shape_.head_dim, buffers_.width, to.stride}, from, to.data);
    }
    [[nodiscard]] HeadRows<const BFloat16> key_rows(const BFloat16* matrix) const {
        return {matrix, shape_, sequence_, key_head_, shape_.kv_heads};
    }
    [[nodiscard]] HeadRows<const BFloat16> query_rows(const BFloat16* matrix, i64 head) const {
        return {matrix, shape_, sequence_, head, shape_.heads};
    }

    const SequenceAttentionGrad<BFloat16>& grad_;
    const AttentionShape& shape_;
    i64 sequence_, key_head_;
    BackwardBuffers buffers_;
    const TileAttentionKernels& kernels_ = tile_attention_kernels();
};

}  // namespace

void attend_backward_by_tiles(const SequenceAttentionGrad<BFloat16>& grad, i64 sequence, i64 key_head) {
    TileAttentionBackward(grad, sequence, key_head).run();
}

}  // namespace moesaic
