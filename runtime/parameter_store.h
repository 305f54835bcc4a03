// All parameters of a model on one rank in two flat arenas, so that gradient buckets are plain slices.
#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/parameter.h"

namespace moesaic {

class ParameterStore;

/// A layer's handle on consecutive parameters of one arena read as one tensor (e.g. q, k and v stacked, or
/// all local experts' gates); valid as soon as the store is allocated.
class Weight {
  public:
    Weight() = default;
    [[nodiscard]] TensorView value() const;
    [[nodiscard]] TensorView grad() const;
    /// f64, the shape of the gradient; or the gradient itself (ParameterStore::sum_once).
    [[nodiscard]] TensorView sum() const;
    /// Of a weight that starts its sum itself (ParameterStore::starts_sum): whether nothing was added since
    /// gradients were zeroed. The caller then has to overwrite the sum, and what is read there before is no
    /// number.
    [[nodiscard]] bool start_sum() const;
    /// Zeroes the sum where start_sum() would be true, so that it can be added to.
    void clear_sum(Stream& stream) const;
    /// Of such a weight: zeroes the gradient where no backward did since gradients were zeroed, so that it
    /// can be added to. A backward reads and writes it only after that.
    void clear_grad(Stream& stream) const;
    /// The same of a parameter that only some models have; empty where it was not declared.
    [[nodiscard]] ConstTensorView value_or_empty() const { return store_ ? value() : TensorView(); }
    [[nodiscard]] TensorView sum_or_empty() const { return store_ ? sum() : TensorView(); }
    /// The value's copies for products y = x · Wᵀ and dx = dy · W; empty where none are kept.
    [[nodiscard]] ConstTensorView packed_transposed() const;
    [[nodiscard]] ConstTensorView packed_plain() const;
    /// Folds the gradient of rows first..first+count-1 into its sum (ParameterStore::fold).
    void fold_rows(Stream& stream, i64 first, i64 count) const;
    /// Whether only folding may add to the sum (ParameterStore::sum_exactly).
    [[nodiscard]] bool sums_exactly() const;
    [[nodiscard]] explicit operator bool() const { return store_ != nullptr; }

  private:
    friend class ParameterStore;
    ParameterStore* store_ = nullptr;
    Placement placement_ = Placement::replicated;
    i64 offset_ = 0;
    Shape shape_;
    std::ptrdiff_t packed_ = -1;  // among the store's packed copies
    std::ptrdiff_t late_ = -1;    // among the store's weights that start their sums themselves
};

/// A contiguous piece of an arena, in elements.
struct ArenaRange {
    i64 begin = 0, end = 0;
    [[nodiscard]] i64 size() const { return end - begin; }
};

/// A tensor that belongs to the model and is no parameter: no gradient, no optimizer; its layer alone changes
/// it, to the same bits on every rank. Of type ParameterStore::real(), zero at first, saved in checkpoints.
struct Buffer {
    std::string name;
    Shape shape;
    Tensor value;  ///< set by ParameterStore::allocate
};

/// Declares parameters in forward order, then holds their values and gradients. Parameters of one segment
/// (embedding, each block, head) become ready together in the backward.
class ParameterStore {
  public:
    ParameterStore(Backend& backend, DType dtype) : backend_(backend), dtype_(dtype) {}

    /// Declares consecutive parameters of one placement and returns them as one tensor of `shape` (their
    /// sizes add up to it).
    Weight declare(std::vector<Parameter> parameters, Shape shape);
    Weight declare(Parameter parameter);
    /// Weights that copy parameters of other ranks, declared, cleared, folded and packed with this store's.
    /// Only their owner changes them, so that no optimizer, norm or checkpoint sees them.
    [[nodiscard]] ParameterStore& copies();
    [[nodiscard]] const ParameterStore* copies_or_null() const { return copies_.get(); }
    /// A buffer of the model; the reference stays valid as long as the store.
    Buffer& declare_buffer(std::string name, Shape shape);
    [[nodiscard]] const std::deque<Buffer>& buffers() const { return buffers_; }
    [[nodiscard]] std::deque<Buffer>& buffers() { return buffers_; }
    /// Says that products read `weight`, a matrix or one per group, so that packed copies pay; `halves` as in
    /// PackWeight.
    void used_in_products(Weight& weight, i64 halves = 1);
    /// Says that the first backward after zero_gradients() overwrites the sum of `weight`
    /// (Weight::start_sum), all of whose parameters fold themselves: zeroes are then neither written nor
    /// read. What no backward started is zeroed with its segment's fold. The gradient itself keeps what it
    /// held until Weight::clear_grad.
    void starts_sum(Weight& weight);
    /// Ends the current segment; every declaration belongs to the segment that is ended after it.
    void end_segment();
    /// Before allocate(): keeps packed copies of the weights that products read, two more values a parameter.
    /// From the first access that may change values on they are not used, until pack() makes them anew.
    void keep_packed_copies() { keeps_packed_ = true; }
    /// Before the first backward: sums over up to `parts` micro-batches become exact, and so the same bits in
    /// whatever order ranks add them. Each part is rounded to multiples of 2^-43 for it, about 1e-13; an
    /// element of more than kLargestExact / parts becomes infinity.
    void sum_exactly(i64 parts);
    static constexpr double kLargestExact = 256;
    /// Before allocate(), where each gradient of a step is the sum of one micro-batch on one rank, all of it
    /// in type real(): gradients are then their own sums, the same bits without memory and traffic of f64
    /// ones. Between two zero_gradients() a segment is folded once at most.
    void sum_once();
    [[nodiscard]] bool sums_once() const { return once_; }
    /// Makes the packed copies anew from the values.
    void pack(Stream& stream);
    /// Assigns storage and sets the initial values, each a function of (seed, name, element index) alone.
    void allocate(Stream& stream, u64 seed);
    /// Initial values of elements first... of a parameter, in `to` (real; host memory): what `values` hold
    /// rounded, where they are bf16.
    void initial_values(const Parameter& parameter, i64 first, TensorView to) const;

    /// Whoever may change values through these makes the packed copies stale.
    [[nodiscard]] std::span<Parameter> parameters() {
        packed_are_fresh_ = false;
        return parameters_;
    }
    [[nodiscard]] std::span<const Parameter> parameters() const { return parameters_; }
    /// Position of a parameter in its arena, in elements.
    [[nodiscard]] i64 offset_of(std::size_t index) const { return offsets_[index]; }
    [[nodiscard]] TensorView values(Placement placement) {
        packed_are_fresh_ = false;
        return arena(placement).value.view();
    }
    [[nodiscard]] TensorView gradients(Placement placement) { return arena(placement).grad.view(); }
    /// f64, or `gradients` (sum_once): sums of gradients over micro-batches. A backward adds one
    /// micro-batch's rows to `gradients`, in type real(), starting from zero; folding adds that to the sum.
    /// Partial gradients of a micro-batch do not depend on the layout, and in f64 their sum hardly depends on
    /// its order: so neither does the rounded sum.
    [[nodiscard]] TensorView sums(Placement placement) {
        return once_ ? gradients(placement) : arena(placement).sum.view();
    }
    [[nodiscard]] i64 elements(Placement placement) const { return arena(placement).elements; }
    /// Range of each segment in an arena, in forward order.
    [[nodiscard]] std::span<const ArenaRange> segments(Placement placement) const {
        return arena(placement).segments;
    }
    /// Of values, and of activations.
    [[nodiscard]] DType dtype() const { return dtype_; }
    /// Of gradients, and of what an optimizer keeps: f32 where values are bf16.
    [[nodiscard]] DType real() const { return accumulation_type(dtype_); }
    [[nodiscard]] Backend& backend() { return backend_; }
    /// Gradients and their sums.
    void zero_gradients(Stream& stream);
    /// Adds the gradients of a segment to their sums and empties them: after the backward of every
    /// micro-batch. Where all parameters of an arena's segment fold themselves there is nothing to do.
    void fold_segment(Stream& stream, int segment);
    /// Rounds sums into the gradients.
    void round_sums(Stream& stream, Placement placement, ArenaRange range);
    /// For a rank on its own: folds everything and rounds the sums back into the gradients.
    void complete_gradients(Stream& stream);

  private:
    friend class Weight;
    struct Arena {
        i64 elements = 0;
        Tensor value, grad, sum;
        std::vector<ArenaRange> segments;
        std::vector<bool> folds_itself;  // by segment: Parameter::folds_itself of all its parameters
        i64 to_fold = 0;                 // elements of the open segment that do not
    };
    [[nodiscard]] Arena& arena(Placement placement) { return arenas_[static_cast<std::size_t>(placement)]; }
    [[nodiscard]] const Arena& arena(Placement placement) const {
        return arenas_[static_cast<std::size_t>(placement)];
    }
    struct Late {
        Weight weight;
        int segment = 0;
        bool started = true, grad_is_clear = true;
    };
    void clear_late_sums(Stream& stream, int first_segment, int last_segment);
    void fold(Stream& stream, Placement placement, ArenaRange range);
    struct Packed {
        Weight weight;
        i64 halves = 1;
        Tensor transposed, plain;
    };

    Backend& backend_;
    DType dtype_;
    u64 seed_ = 0;
    Arena arenas_[2];
    std::vector<Parameter> parameters_;
    std::vector<i64> offsets_;
    std::deque<Buffer> buffers_;
    bool keeps_packed_ = false, packed_are_fresh_ = false;
    FoldRounding rounding_;
    bool once_ = false;         // gradients are their own sums
    std::vector<bool> folded_;  // by segment, since gradients were zeroed
    std::vector<Packed> packed_;
    std::vector<Late> late_;
    std::unique_ptr<ParameterStore> copies_;  // where there are any
};

}  // namespace moesaic
