// The table of operation cases that every back end has to pass, whatever the mode of the check.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "runtime/backend.h"

namespace moesaic::conformance {

/// How a buffer's elements are stored: `stored` is f64, f32 or bf16, whichever the check runs with, and
/// `real` the same, but f32 with bf16.
enum class Storage { stored, real, f64, int32, int64 };

/// One operand of an operation, with its contents before the call as doubles.
struct Buffer {
    std::string name;
    Shape shape;
    std::vector<double> values;
    Storage storage = Storage::stored;
    bool by_row = false;   ///< a slice of the operation's rows takes the same slice of this buffer
    bool written = false;  ///< compared after the call
};

using Views = std::span<const TensorView>;
using Values = std::vector<std::vector<double>>;
using Run = std::function<void(Backend&, Stream&, Views)>;

/// The operation leaves the derivative of the objective by buffer `input` in buffer `gradient`, or adds it.
struct GradientPair {
    std::size_t input, gradient;
    bool added = false;
};

/// Whether an operation is made of matrix products, whose sums may be in another order than the plain loops'.
enum class Products {
    none,
    sums,         ///< of bf16 operands: exact products, added in f32 in any order (a library's)
    round_inside  ///< what one product gives may be rounded to bf16 for the next (attention's weights)
};

struct OpCase {
    std::string name;
    std::vector<Buffer> buffers;
    Run run;
    /// The same in plain loops on doubles: gets the buffers' contents before the call and changes them.
    std::function<void(Values&)> reference;
    double tolerance_f32 = 1e-5, tolerance_f64 = 1e-13;
    bool mixes = false;  ///< takes operands in f32 beside others in bf16, in any mixture
    Products products = Products::none;
    i64 row_unit = 1;      ///< rows may be split from the others at multiples of this; 0: not at all
    i64 gpu_row_unit = 1;  ///< and of this, on a GPU: how many rows it sums before it adds them to others
    /// For a backward: <dy, output> of the forward, run on the back end in f64 with these operands.
    std::function<double(Backend&, Stream&, Views)> objective = nullptr;
    std::vector<GradientPair> gradients = {};
    /// The same from simpler operations: equal bit for bit.
    Run same_bits = nullptr;
    bool synchronizes = false;  ///< the run waits for the stream, so enqueueing alone does change buffers
    /// Several operations: in bf16 each reads what the one before it rounded, so same_bits is the definition.
    bool in_turn = false;
};

[[nodiscard]] const std::vector<OpCase>& all_cases();

// The parts of the table, one per family.
void append_elementwise_cases(std::vector<OpCase>& cases);
void append_layer_cases(std::vector<OpCase>& cases);
void append_loss_cases(std::vector<OpCase>& cases);
void append_routing_cases(std::vector<OpCase>& cases);
void append_activation_cases(std::vector<OpCase>& cases);
void append_row_index_cases(std::vector<OpCase>& cases);
void append_router_cases(std::vector<OpCase>& cases);
void append_route_cases(std::vector<OpCase>& cases);
void append_router_noise_cases(std::vector<OpCase>& cases);
void append_balance_cases(std::vector<OpCase>& cases);
void append_product_cases(std::vector<OpCase>& cases);
void append_attention_cases(std::vector<OpCase>& cases);

// What the parts build their buffers from.

/// Normal random numbers; a function of name and shape.
[[nodiscard]] Buffer normal(std::string name, Shape shape, double scale = 1);
/// Random integers in [first, last).
[[nodiscard]] Buffer integers(std::string name, Shape shape, i64 first, i64 last);
[[nodiscard]] Buffer filled(std::string name, Shape shape, std::vector<double> values,
                            Storage storage = Storage::stored);
/// Written by the operation, whatever it held before.
[[nodiscard]] Buffer output(std::string name, Shape shape, Storage storage = Storage::stored);
/// The same buffer, sliced with the operation's rows.
[[nodiscard]] Buffer by_row(Buffer buffer);
/// The same buffer, f32 where others are bf16.
[[nodiscard]] Buffer real(Buffer buffer);
/// The same buffer, also compared after the call.
[[nodiscard]] Buffer written(Buffer buffer);

/// <a, b> of f64 operands, after the stream has run.
[[nodiscard]] double dot(Stream& stream, ConstTensorView a, ConstTensorView b);
/// Positions of the `count` largest, ties to the lower.
[[nodiscard]] std::vector<i64> best_of(const std::vector<double>& scores, i64 count);
[[nodiscard]] std::vector<double> row_of(const std::vector<double>& values, i64 row, i64 columns);
/// Addends of a product's sum that no back end takes in one piece, pairs of bf16 included.
constexpr i64 kSeveralPieces = 6200;
/// An index into a vector from a signed count.
[[nodiscard]] constexpr std::size_t at(i64 index) {
    return static_cast<std::size_t>(index);
}

}  // namespace moesaic::conformance
