// Every kernel once, for f32: 32 rows, 128 columns, 64 experts, 4 choices.
#include "tests/cuda_host/every_kernel.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/cuda/kernels/activation.h"
#include "runtime/cuda/kernels/attention.h"
#include "runtime/cuda/kernels/attention_tiles.h"
#include "runtime/cuda/kernels/capacity.h"
#include "runtime/cuda/kernels/choices.h"
#include "runtime/cuda/kernels/chosen_tokens.h"
#include "runtime/cuda/kernels/elementwise.h"
#include "runtime/cuda/kernels/key_groups.h"
#include "runtime/cuda/kernels/layers.h"
#include "runtime/cuda/kernels/loss.h"
#include "runtime/cuda/kernels/route.h"
#include "runtime/cuda/kernels/router.h"
#include "runtime/cuda/kernels/router_scores.h"
#include "runtime/cuda/kernels/router_sums.h"
#include "runtime/cuda/kernels/routing.h"
#include "runtime/cuda/kernels/rows.h"
#include "tests/cuda_host/emulator.h"

namespace cuda_host {
namespace {

using namespace moesaic;
using namespace moesaic::kernels;

using kernels::Real;

// Rows, columns, experts, choices: whole sectors, and more than one turn of a warp.
constexpr i64 kRows = 32, kWidth = 128, kExperts = 64, kChoices = 4, kHeads = 2, kHeadDim = 64;

/// Operands in the device's memory, all of one size that is large enough.
class Operands {
  public:
    Operands() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
    ~Operands() {
        cudaStreamDestroy(stream);
        for (void* block : blocks_) cudaFree(block);
    }
    template <class T = float>
    T* numbers(double scale = 1) {
        T* const data = room<T>();
        for (i64 i = 0; i < kMost; ++i) data[i] = static_cast<T>(scale * std::sin(static_cast<double>(i)));
        return data;
    }
    /// Spread over [0, limit).
    i32* indices(i64 limit) {
        i32* const data = room<i32>();
        for (i64 i = 0; i < kMost; ++i) data[i] = static_cast<i32>(i * 7 % limit);
        return data;
    }
    /// 0, step, 2 step, ...
    template <class T>
    T* steps_of(T step) {
        T* const data = room<T>();
        for (i64 i = 0; i < kMost; ++i) data[i] = static_cast<T>(i) * step;
        return data;
    }
    i64* steps(i64 step) { return steps_of<i64>(step); }
    /// Zeros.
    template <class T>
    T* room() {
        void* block = nullptr;
        cudaMallocManaged(&block, kMost * sizeof(T), cudaMemAttachGlobal);
        std::memset(block, 0, kMost * sizeof(T));
        blocks_.push_back(block);
        return static_cast<T*>(block);
    }

    cudaStream_t stream = nullptr;

  private:
    static constexpr i64 kMost = kRows * kWidth * kChoices;
    std::vector<void*> blocks_;
};

template <class Functor>
void elements(Operands& o, i64 count, const Functor& functor) {
    each(o.stream, count, functor);
}
template <class Functor>
void rows(Operands& o, i64 count, const Functor& functor) {
    each_row(o.stream, count, functor);
}

template <class Functor>
void blocks(Operands& o, i64 count, const Functor& functor) {
    each_block(o.stream, count, functor);
}

void run_elementwise(Operands& o) {
    constexpr i64 n = kRows * kWidth;
    each(o.stream, n, FillElement<float>{1, o.numbers()});
    each_quad(o.stream, n, AddQuads<float, true>{o.numbers(), o.numbers()});
    each_quad(o.stream, n, FoldQuads<float, true>{o.numbers(), o.numbers<double>(), 0, 0});
    each_quad(o.stream, n, ConvertQuads<double, float, true>{o.numbers<double>(), o.numbers()});
    each_quad(o.stream, n, ScaleQuads<float, true>{2, o.numbers()});
    each_quad(o.stream, n, ClampQuads<float, true>{0.5F, o.numbers()});
    each_quad(o.stream, n, ClampGradQuads<float, true>{0.5F, o.numbers(), o.numbers()});
    each_quad(o.stream, n, MultiplyQuads<float, true>{o.numbers(), o.numbers(), o.numbers(), true});
    each_quad(o.stream, n,
              AdamWQuads<float, true>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.room<Bf16>(), 1,
                                      1, 0.9F, 0.1F, 0.9F, 0.1F, 1e-8F, 1e-3F, 1});
    each(o.stream, n, RandomElement<float>{1, 2, 3, true, 0, 1, o.numbers()});
    each(o.stream, n, RandomElement<float>{1, 2, 3, false, 0, 1, o.numbers()});
    each_row_of(o.stream, 4, n / 4, SquaresRow<float, true>{o.numbers(), n, n / 4, o.numbers<double>()});
}

template <Function kind>
void run_activation(Operands& o) {
    const Slopes<float> slopes{o.numbers(), o.steps(kRows / 4), 4};
    constexpr i64 quads = kWidth / kQuad;
    each_tile(o.stream, kRows, quads,
              ActivationTile<kind, float, true>{o.numbers(), o.numbers(), kWidth, slopes});
    each_tile(o.stream, kRows, quads,
              ActivationGradTile<kind, float, true>{o.numbers(), o.numbers(), o.numbers(), kWidth, slopes});
}

void run_layers(Operands& o) {
    run_activation<Function::swiglu>(o);
    run_activation<Function::gelu>(o);
    run_activation<Function::relu>(o);
    run_activation<Function::prelu>(o);
    rows(o, 4,
         SlopeGradRow<float>{o.numbers(), o.numbers(), o.steps(kRows / 4), kWidth, o.numbers<double>()});
    constexpr i32 width = kWidth, wide = 2048;  // a row for a warp, and for a team
    for (const i32 n : {width, wide}) {
        const i64 count = kRows * kWidth / n;
        each_row_of(o.stream, count, n,
                    NormRow<float, true>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), n, 1e-5});
        each_row_of(o.stream, count, n,
                    NormGradRow<float, true>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.numbers(),
                                             n, true});
        each_row_of(o.stream, count, n,
                    EmbeddingGradRow<float, true>{o.steps_of<i32>(1), o.steps_of<i32>(0), o.numbers(),
                                                  o.numbers(), count, n});
    }
    each_team(o.stream, kWidth / 32,
              NormWeightGradChunk<float, true>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), kRows,
                                               width, width / 32});
    elements(o, kWidth, ChunkSumElement<float>{o.numbers(), o.numbers(), kRows, kWidth});
    each_team(o.stream, 2 * (width / 32),  // a run of 128 rows
              EmbeddingGradRun<float, true>{o.steps_of<i32>(1), o.steps_of<i32>(0), o.numbers(), o.numbers(),
                                            128, width, width / 32});
    constexpr i32 dim = kHeadDim, quads = dim / 2 / static_cast<i32>(kQuad);
    each_tile(
        o.stream, kRows, kHeads * quads,
        RopeTile<float, true>{o.numbers(), o.numbers(), o.numbers(), kHeads * dim, dim, quads, kRows, false});
    each_team(o.stream, 1, IndexOrder{o.indices(8), kRows, o.indices(1), o.indices(1)});
}

template <class Stored, class Numbers>
void run_attention_tiles(Operands& o, const TileShape& shape, Numbers numbers) {
    each_head_block(o.stream, AttentionTile<Stored, kHeadDim>{shape, numbers(), numbers(), numbers(),
                                                              numbers(), o.numbers()});
    each_head_block(o.stream,
                    QueryGradTile<Stored, kHeadDim>{shape, numbers(), numbers(), numbers(), numbers(),
                                                    numbers(), o.numbers(), numbers(), o.numbers()});
    each_head_block(o.stream, KeyGradTile<Stored, kHeadDim>{shape, numbers(), numbers(), numbers(), numbers(),
                                                            o.numbers(), o.numbers(), numbers(), numbers()});
}

void run_attention(Operands& o) {
    const HeadShape shape{kRows, kHeads, kHeads, kHeadDim, kRows, true, nullptr, 0.125};
    const i64 count = kHeads * kRows;
    rows(o, count,
         AttentionRow<float>{shape, o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.numbers()});
    rows(o, count, AttentionDeltaRow<float>{shape, o.numbers(), o.numbers(), o.numbers()});
    rows(o, count,
         QueryGradRow<float>{shape, o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.numbers(),
                             o.numbers(), o.numbers()});
    rows(o, count,
         KeyGradRow<float>{shape, o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.numbers(),
                           o.numbers(), o.numbers(), o.numbers()});
    run_attention_tiles<float>(o, tile_shape(shape), [&] { return o.numbers(); });
    run_attention_tiles<Bf16>(o, tile_shape(shape),
                              [&] { return reinterpret_cast<Bf16*>(o.numbers<std::uint16_t>(0)); });
}

void run_losses(Operands& o) {
    rows(o, kRows, SoftmaxRow<float, 4>{o.numbers(), o.numbers(), o.numbers(), kWidth});
    rows(o, kRows, SoftmaxRow<float, 0>{o.numbers(), o.numbers(), o.numbers(), kWidth});
    const CrossEntropyRow<float> cross_entropy{o.numbers(),
                                               o.indices(kWidth),
                                               o.numbers<double>(),
                                               o.numbers<double>(),
                                               o.indices(2),
                                               o.numbers<double>(),
                                               kWidth};
    rows(o, kRows, cross_entropy);
    blocks(o, kRows, cross_entropy);
    blocks(o, kRows,
           CrossEntropyGradPart<float>{o.numbers(), o.indices(kWidth), o.numbers<double>(), o.numbers(), 1,
                                       kWidth, 1});
    elements(o, kRows, SquaredErrorRow<float>{o.numbers(), o.numbers<double>(), o.numbers<double>(), 8});
    elements(o, kRows * 8, SquaredErrorGradElement<float>{o.numbers(), o.numbers<double>(), o.numbers(), 1});
}

void run_router(Operands& o) {
    for (const Counted counted : {Counted::all, Counted::first, Counted::most_probable})
        blocks(o, kRows / kTokensPerSum,
               RouterSumChunk<float>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.indices(kExperts),
                                     kRows, kChoices, kRows, 1, kRows / kTokensPerSum, 1, kExperts, kExperts,
                                     counted, o.numbers<double>(), o.numbers<double>()});
    const RouterSumChunk<float> sums{o.numbers(),
                                     o.numbers(),
                                     nullptr,
                                     o.numbers(),
                                     o.indices(1),
                                     kRows,
                                     kChoices,
                                     kRows,
                                     1,
                                     kRows / kTokensPerSum,
                                     1,
                                     kExperts,
                                     kExperts,
                                     Counted::all,
                                     o.numbers<double>(),
                                     o.numbers<double>()};
    for (const bool sigmoid : {true, false})
        for (const int top_groups : {4, 8})
            blocks(o, kRows / kTokensPerSum,
                   RouteChunk<float, 2>{o.numbers(), o.numbers(), sigmoid ? o.numbers() : nullptr,
                                        o.numbers(), o.numbers(), o.indices(1), o.numbers(), kExperts,
                                        kChoices, 8, top_groups, true, false, true, 1, sums});
    blocks(o, kRouterSums * kExperts / kColumnsOfBlock,
           RouterSumTotal{o.numbers<double>(), o.numbers<double>(), 1, kRows, kExperts,
                          kExperts / kColumnsOfBlock, o.steps(1), o.steps(1), o.numbers<double>(),
                          o.numbers<double>(), o.numbers<double>(), o.numbers<double>()});
    for (const bool over_choices : {true, false})
        blocks(
            o, kRows * 32 / kBlockThreads,
            RouterGradRows<float, 2>{o.numbers(), o.numbers(), over_choices ? nullptr : o.numbers(),
                                     o.numbers(), o.numbers(), o.indices(kExperts), o.numbers<double>(), true,
                                     kExperts, kChoices, kRows, kRows, over_choices, 1, 1, 0.1, o.numbers()});
    blocks(o, 4,
           ConfidencePart<float>{o.numbers(), o.numbers(), kRows, kExperts, kChoices, kRows / 4,
                                 o.numbers<double>(), o.numbers<double>()});
}

void run_capacity(Operands& o) {
    constexpr i64 choices = kRows * kChoices;
    elements(o, choices,
             AddByChoiceElement<float>{o.numbers<double>(), true, o.indices(kExperts), kExperts, kChoices,
                                       kRows, o.numbers()});
    elements(o, choices,
             RivalKeyElement{o.indices(kExperts), kExperts, kChoices, kRows, o.indices(1), o.indices(1),
                             o.indices(1)});
    elements(o, choices,
             RivalPriorityElement<float>{o.numbers(), o.indices(kExperts), o.indices(choices), kExperts,
                                         kChoices, o.numbers()});
    for (const bool by_priority : {false, true})
        elements(o, choices,
                 LimitElement<float>{by_priority ? o.numbers() : nullptr, o.indices(1), o.indices(choices),
                                     o.indices(1), o.steps(2), 2, o.indices(1)});
    elements(o, choices,
             RescaleElement<float>{o.numbers(), o.indices(4), o.indices(4), o.numbers(), kChoices});
    elements(
        o, kRows,
        RescaleGradRow<float>{o.numbers(), o.numbers(), o.indices(4), o.indices(4), o.numbers(), kChoices});
}

void run_scores(Operands& o) {
    constexpr i64 scores = kRows * kExperts;
    rows(o, kRows, SigmoidRow<float>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), kExperts});
    blocks(o, kExperts, ChosenTokensColumn<float>{o.numbers(), o.indices(1), kRows, kExperts, kRows, 2});
    rows(o, kRows, SinkhornPowerRow<float>{o.numbers(), o.numbers<double>(), kExperts});
    rows(o, kRows,
         SinkhornFactorRow{o.numbers<double>(), o.numbers<double>(), o.numbers<double>(), kExperts, kRows});
    blocks(o, kExperts / kColumnsOfBlock,
           SinkhornColumnPart{o.numbers<double>(), o.numbers<double>(), o.numbers<double>(), kRows, kExperts,
                              kRows, kExperts / kColumnsOfBlock});
    elements(o, scores,
             SinkhornScoreElement<float>{o.numbers(), o.numbers<double>(), o.numbers(), kExperts, kRows});
    elements(o, scores, NoisyLogitElement<float>{o.numbers(), o.numbers(), o.numbers(), o.numbers()});
    elements(o, scores,
             NoisyLogitGradElement<float>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.numbers()});
    elements(o, scores,
             NoisyLoadElement<float>{o.numbers(), o.numbers(), o.numbers(), o.indices(kExperts), o.numbers(),
                                     kExperts, kChoices});
    rows(o, kRows,
         NoisyLoadGradRow<float>{o.numbers(), o.numbers(), o.numbers(), o.indices(kExperts),
                                 o.numbers<double>(), true, kExperts, kChoices, kRows, o.numbers(),
                                 o.numbers(), o.numbers()});
    elements(o, scores, PrototypeElement<float>{o.numbers(), o.numbers(), o.numbers(), kExperts, kWidth});
    elements(o, kRows * kWidth,
             PrototypeInputGradElement<float>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), kExperts,
                                              kWidth});
    elements(o, kExperts * kWidth,
             PrototypeGradElement<float>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), kRows, kExperts,
                                         kWidth});
    rows(o, 1, BalanceBiasRow<float>{o.steps(3), o.numbers(), kExperts, 0.1, true});
}

void run_routing(Operands& o) {
    constexpr i64 choices = kRows * kChoices;
    for (const i64 top_groups : {4, 8}) {
        rows(o, kRows,
             TopKRow<float, 2>{o.numbers(), o.numbers(), o.indices(1), o.numbers(), kExperts, kChoices, 8,
                               top_groups, true});
        rows(o, kRows,
             TopKRow<float, 0>{o.numbers(), o.numbers(), o.indices(1), o.numbers(), kExperts, kChoices, 8,
                               top_groups, true});
    }
    elements(o, choices,
             ChoiceElement<float>{o.numbers(), o.indices(kExperts), o.numbers(), kExperts, kChoices});
    elements(o, kRows, NormalizedRow<float>{o.numbers(), 1, kChoices});
    const KeyChunks keys{o.indices(kExperts), kBlockThreads, kBlockThreads, 1, kExperts, 1, o.indices(1)};
    blocks(o, 1, KeyCountChunk{keys});
    blocks(o, 1, KeyPlaceChunk{keys, o.indices(1), o.steps(0), o.indices(1)});
}

void run_rows(Operands& o) {
    constexpr i64 choices = kRows * kChoices, quads = kWidth / kQuad;
    each_tile(o.stream, kRows, quads,
              GatherTile<uint4>{o.room<uint4>(), o.indices(kRows), o.indices(kRows), o.room<uint4>(), quads});
    each_tile(o.stream, kRows, quads,
              GatherAddTile<float, true>{o.numbers(), o.indices(kRows), o.numbers(), kWidth});
    each_tile(o.stream, kRows, quads,
              CombineTile<float, true>{o.numbers(), o.indices(choices), o.numbers(), o.numbers(), kChoices,
                                       kWidth, true});
    each_row_of(o.stream, choices, kWidth,
                CombineGradRow<float, true>{o.numbers(), o.numbers(), o.indices(choices), o.numbers(),
                                            o.numbers(), o.numbers(), kChoices, kWidth});
    each_row_of(o.stream, kRows, kWidth, GateRow<float, true>{o.numbers(), o.numbers(), o.numbers(), kWidth});
    each_row_of(
        o.stream, kRows, kWidth,
        GateGradRow<float, true>{o.numbers(), o.numbers(), o.numbers(), o.numbers(), o.numbers(), kWidth});
}

}  // namespace

void run_every_kernel() {
    for (const auto run : {run_elementwise, run_layers, run_attention, run_losses, run_router, run_capacity,
                           run_scores, run_routing, run_rows}) {
        Operands operands;
        run(operands);
        EXPECT_EQ(cudaStreamSynchronize(operands.stream), cudaSuccess) << first_finding();
    }
}

}  // namespace cuda_host
