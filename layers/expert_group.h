// The experts that this rank owns, computed together: one grouped product per projection.
#pragma once

#include <span>
#include <vector>

#include "comm/exchange/indexed_rows.h"
#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// Which columns of its experts' hidden layer a rank computes.
struct ExpertSlice {
    int index = 0, count = 1;
};

/// down(activation(up(x))) of e experts over rows grouped by expert. Declares, for each of them,
/// mlp.experts.{n}.up_proj [F,H] and .down_proj [H,F], n the global expert number, with swiglu .gate_proj
/// [F,H], with prelu .act_fn [1]. Of experts in slices F are the columns of the slice, the results are terms
/// of a sum over slices, and so are the gradients of rows and of act_fn.
class ExpertGroup {
  public:
    /// Which part of a micro-step's rows a backward sees.
    struct Round {
        i64 index = 0, count = 1;
        i64 first_source = 0;  ///< whose rows come first, the last ones being those of the rank before it
    };
    /// What sources' rows that may go on in the next round leave behind.
    struct OpenSources {
        struct Numbers {
            std::vector<i64> source;  // [e] whose rows the gradient arena holds a part of; -1: nobody's
            i64 expert = -1;          // whose last rows wait: too few for a product that keeps the bits
            i64 waiting = 0;
            bool operator==(const Numbers&) const = default;
        };
        struct Rows {
            Tensor dy, x;  // [addends_together,.], those that wait first
        };
        Numbers numbers;
        Rows up, down;
    };
    struct Saved {
        Tensor preactivation;  // [C,hF], C the capacity; the first R rows are in use. Its gradient afterwards
        Tensor hidden;         // [C,F]
        Round round;           // set before the backward
        OpenSources open;      // lives from round to round
    };

    /// Owns the experts of these global numbers, by local index; which ones may change between steps, not how
    /// many. Buffers hold `capacity_rows` rows whatever arrives, so that memory does not depend on routing.
    ExpertGroup(const ModelSpec& spec, int layer, std::span<const i32> numbers, ExpertSlice slice,
                i64 capacity_rows, ParameterStore& store);

    /// rows [R,H] by local expert, rows_per_expert [e] summing to R -> out [R,H].
    void forward(StepContext& context, const IndexedRows& rows, std::span<const i64> rows_per_expert,
                 TensorView out, Saved& saved) const;
    /// d_out [R,H] -> d_rows [R,H]. rows_per_source [e,W]: each source's rows are one
    /// micro-batch, whose gradient is added row by row from zero and folded into the sum before the next
    /// source's: the same partial sums on every layout, however many rounds carry them.
    void backward(StepContext& context, const IndexedRows& rows, std::span<const i64> rows_per_expert,
                  std::span<const i64> rows_per_source, const IndexedRows& d_out, TensorView d_rows,
                  Saved& saved) const;
    /// The memory of `saved` alone.
    void allocate(StepContext& context, DType dtype, Saved& saved) const;
    /// The part of forward that backward needs: fills `saved` alone.
    void recompute(StepContext& context, const IndexedRows& rows, std::span<const i64> rows_per_expert,
                   Saved& saved) const;

  private:
    i64 width_, hidden_, capacity_rows_;
    ActivationKind activation_;
    Weight up_;     // [e,hF,H], h = 2 with the gate above up, else 1
    Weight down_;   // [e,H,F]
    Weight slope_;  // [e] of prelu
};

}  // namespace moesaic
