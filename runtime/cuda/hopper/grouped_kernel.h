// Products of groups of rows: a warp brings operands by tensor copies into stages of shared memory, two
// warpgroups multiply them, each its half of a tile's rows, and write the results. Blocks stay and take one
// tile after another; the copies of the next begin while results are written.
//
// Sums are f32 over the terms in ascending order, so a row's result does not know the tile that it stands in.
//
// Who includes this includes its instructions before: instructions.h, or the model of them that g++ compiles.
#pragma once

#include "runtime/cuda/gpu.h"
#include "runtime/cuda/hopper/grouped_products.h"
#include "runtime/cuda/hopper/results.h"
#include "runtime/cuda/hopper/warpgroup_product.h"

namespace moesaic::hopper {

inline constexpr int kStep = 64;               ///< terms that a stage holds: 128 bytes of bf16
inline constexpr int kConsumerThreads = 256;   ///< two warpgroups that multiply
inline constexpr int kBlockThreads = 3 * 128;  ///< and one that brings operands
inline constexpr int kAlignment = 1024;        ///< of boxes in shared memory: eight rows of 128 bytes
inline constexpr int kBytesA = kTileRows * kStep * 2, kBytesB = kTileColumns * kStep * 2;
inline constexpr int kStageBytes = kBytesA + kBytesB;

/// What kernels differ in.
template <Product kProduct>
struct GroupedForm {
    static constexpr bool kOfWeight = kProduct == Product::weight_gradient;
    static constexpr bool kTransposeA = kOfWeight, kTransposeB = kProduct != Product::forward;
    static constexpr int kStages = kOfWeight ? 4 : 3;             ///< the faster ones: grouped_products.cu
    static constexpr int kRoomOfWarp = kOfWeight ? 0 : 16 * 128;  ///< for results on their way
    static constexpr int kSharedBytes =
        kAlignment + kStages * kStageBytes + 8 * kRoomOfWarp + 2 * kStages * 8;
    /// Rows of a box: those of an operand, or the terms, then a box for each 64 columns, where it is
    /// transposed.
    static constexpr int kBoxRowsA = kTransposeA ? kStep : kTileRows;
    static constexpr int kBoxRowsB = kTransposeB ? kStep : kTileColumns;
};

/// `start` with what the kernel of a product is made of.
template <class Start>
cudaError_t with_form(Product product, const Start& start) {
    switch (product) {
        case Product::forward:
            return start(GroupedForm<Product::forward>());
        case Product::input_gradient:
            return start(GroupedForm<Product::input_gradient>());
        case Product::weight_gradient:
            return start(GroupedForm<Product::weight_gradient>());
    }
    return cudaErrorInvalidValue;
}

/// A stage of shared memory and how often it was used, in parity.
template <int kStages>
struct Turn {
    int stage = 0;
    unsigned parity = 0;

    __device__ void advance() {
        if (++stage < kStages) return;
        stage = 0;
        parity ^= 1;
    }
};

/// Addresses in shared memory.
template <class Form>
struct SharedPlaces {
    unsigned begin;

    [[nodiscard]] __device__ unsigned a(int stage) const { return begin + stage * kStageBytes; }
    [[nodiscard]] __device__ unsigned b(int stage) const { return a(stage) + kBytesA; }
    [[nodiscard]] __device__ unsigned room(int warp) const {
        return a(Form::kStages) + warp * Form::kRoomOfWarp;
    }
    /// Barriers: operands have come; they may be overwritten.
    [[nodiscard]] __device__ unsigned full(int stage) const { return room(8) + stage * 8; }
    [[nodiscard]] __device__ unsigned empty(int stage) const { return full(Form::kStages + stage); }
};

template <class Form>
__device__ GroupTile tile_of(const GroupedArguments& arguments, int number) {
    if constexpr (Form::kOfWeight)
        return tile_of_weights(arguments.groups, arguments.height, arguments.width, number);
    return tile_of_rows(arguments.ranges, arguments.range_count, arguments.width, number);
}

/// Terms of one of the tile's parts.
template <class Form>
__device__ int terms_of(const GroupedArguments& arguments, const GroupTile& tile, int part) {
    if constexpr (Form::kOfWeight) return arguments.ranges[tile.first_part + part].rows;
    return arguments.terms;
}

/// One operand of a stage: kExtent rows or columns of the result from `place` on, terms from `term` on.
template <bool kTransposed, int kExtent>
__device__ void bring(unsigned to, const CUtensorMap* map, unsigned full, int place, int term, int matrix) {
    constexpr int kBox = kTransposed ? 64 : kExtent;
    GPU_UNROLL
    for (int i = 0; i < kExtent; i += kBox) {
        const int x = kTransposed ? place + i : term, y = kTransposed ? term : place + i;
        copy_box(to + i * kStep * 2, map, full, x, y, matrix);
    }
}

/// One thread's work: the operands of all tiles of this block, as stages become free.
template <class Form>
__device__ void bring_operands(SharedPlaces<Form> shared, const CUtensorMap* a, const CUtensorMap* b,
                               const GroupedArguments& arguments) {
    Turn<Form::kStages> turn;
    for (int number = static_cast<int>(blockIdx.x); number < arguments.tiles;
         number += static_cast<int>(gridDim.x)) {
        const GroupTile tile = tile_of<Form>(arguments, number);
        for (int part = 0; part < tile.parts; ++part) {
            const int terms = terms_of<Form>(arguments, tile, part);
            const int first = Form::kOfWeight ? arguments.ranges[tile.first_part + part].first : 0;
            for (int term = 0; term < terms; term += kStep) {
                barrier_wait(shared.empty(turn.stage), turn.parity ^ 1);
                const unsigned full = shared.full(turn.stage);
                barrier_expect(full, kStageBytes);
                bring<Form::kTransposeA, kTileRows>(shared.a(turn.stage), a, full, tile.row, first + term, 0);
                bring<Form::kTransposeB, kTileColumns>(shared.b(turn.stage), b, full, tile.column,
                                                       first + term, Form::kOfWeight ? 0 : tile.group);
                turn.advance();
            }
        }
    }
}

/// A warp of a warpgroup that multiplies.
template <class Form>
struct Consumer {
    SharedPlaces<Form> shared;
    const GroupedArguments& arguments;
    int thread;  ///< of both warpgroups
    Turn<Form::kStages> turn = {};

    /// Of the tile, the warpgroup's.
    [[nodiscard]] __device__ int first_row() const { return thread / 128 * 64; }

    /// The stage may be overwritten.
    __device__ void release(int stage) const {
        if (thread % 32 == 0) barrier_arrive(shared.empty(stage));
    }

    /// The terms from `count` on are rows of other groups, which may hold NaN: zeros in both operands.
    __device__ void clear_terms_from(int count) const {
        constexpr int kBoxes = (kTileRows + kTileColumns) / 64, kBoxBytes = kStep * 128;
        const int chunks = (kStep - count) * 8;
        for (int i = thread; i < kBoxes * chunks; i += kConsumerThreads)
            clear_shared(shared.a(turn.stage) + i / chunks * kBoxBytes + count * 128 + i % chunks * 16);
        show_stores();
        meet(1, kConsumerThreads);
    }

    /// Waits for the next stage; `terms` are those that are left.
    __device__ void await(int terms) const {
        barrier_wait(shared.full(turn.stage), turn.parity);
        if constexpr (Form::kOfWeight)
            if (terms < kStep) clear_terms_from(terms);
    }

    __device__ void multiply_stage(Sums& sums, bool onto) const {
        const std::uint64_t a = operand_at<Form::kTransposeA>(shared.a(turn.stage) + first_row() * kStep * 2);
        const std::uint64_t b = operand_at<Form::kTransposeB>(shared.b(turn.stage));
        begin_products();
        GPU_UNROLL
        for (int i = 0; i < kStep / 16; ++i)
            add_product<Form::kTransposeA, Form::kTransposeB>(sums, a + i * kNext16Terms<Form::kTransposeA>,
                                                              b + i * kNext16Terms<Form::kTransposeB>,
                                                              i > 0 || onto ? 1 : 0);
        commit_products();
    }

    /// Starts the products of one part; the last stage's may be running at the end. Returns that stage.
    __device__ int multiply(Sums& sums, int terms) {
        int last = -1;
        for (int term = 0; term < terms; term += kStep) {
            await(terms - term);
            multiply_stage(sums, term > 0);
            wait_for_products<1>();
            if (last >= 0) release(last);
            last = turn.stage;
            turn.advance();
        }
        return last;
    }
    /// Where this warpgroup has no rows.
    __device__ void pass(int terms) {
        for (int term = 0; term < terms; term += kStep) {
            await(terms - term);
            __syncwarp();  // a lane that has not seen it come could wait for its next use
            release(turn.stage);
            turn.advance();
        }
    }

    __device__ void write(Sums& sums, const GroupTile& tile, bool onto) const {
        const int row = first_row() + thread / 32 % 4 * 16;
        const ResultPiece piece{tile.rows - row, arguments.width - tile.column, arguments.width};
        const std::int64_t first = tile.row + row, width = arguments.width;
        if constexpr (Form::kOfWeight) {
            auto* const c = static_cast<double*>(arguments.c) +
                            static_cast<std::int64_t>(tile.group) * arguments.height * width;
            fold_piece(sums, piece, c + first * width + tile.column, onto);
        } else {
            auto* const c = static_cast<std::uint16_t*>(arguments.c) + first * width + tile.column;
            if (onto) add_piece(sums, piece, c);
            store_piece(sums, piece, c, shared.room(thread / 32));
        }
    }

    /// The products of a tile, part by part; `meanwhile` is called while the last ones run.
    template <class Meanwhile>
    __device__ void compute(const GroupTile& tile, const Meanwhile& meanwhile) {
        Sums sums = {};
        const bool has_rows = tile.rows > first_row();
        int part = 0;
        do {  // a tile without parts is zeros
            const int terms = tile.parts > 0 ? terms_of<Form>(arguments, tile, part) : 0;
            int last = -1;
            if (has_rows)
                last = multiply(sums, terms);
            else
                pass(terms);
            const bool onto = arguments.accumulate || part > 0;
            if (++part >= tile.parts) meanwhile();
            wait_for_products<0>();
            if (last >= 0) release(last);
            if (has_rows) write(sums, tile, onto);
        } while (part < tile.parts);
    }

    __device__ void run() {
        int number = static_cast<int>(blockIdx.x);
        if (number >= arguments.tiles) return;
        GroupTile tile = tile_of<Form>(arguments, number), next = tile;
        while (number < arguments.tiles) {
            number += static_cast<int>(gridDim.x);
            compute(tile, [&] {
                if (number < arguments.tiles) next = tile_of<Form>(arguments, number);
            });
            tile = next;
        }
    }
};

template <class Form>
__device__ void start_barriers(SharedPlaces<Form> shared) {
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Form::kStages; ++stage) {
            barrier_start(shared.full(stage), 1);
            barrier_start(shared.empty(stage), kConsumerThreads / 32);
        }
        publish_barriers();
    }
    __syncthreads();
}

template <class Form>
__global__ void __launch_bounds__(kBlockThreads, 1)
    grouped_product_kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                           const __grid_constant__ GroupedArguments arguments) {
    GPU_DYN_SHARED(unsigned char, memory);
    const SharedPlaces<Form> shared{(shared_address(memory) + kAlignment - 1) / kAlignment * kAlignment};
    start_barriers(shared);
    if (threadIdx.x >= kConsumerThreads) {
        give_registers<40>();
        if (threadIdx.x == kConsumerThreads) {
            fetch_map(&a);
            fetch_map(&b);
            bring_operands(shared, &a, &b, arguments);
        }
        __syncwarp();
    } else {
        take_registers<232>();
        Consumer<Form>{shared, arguments, static_cast<int>(threadIdx.x)}.run();
    }
}

}  // namespace moesaic::hopper
