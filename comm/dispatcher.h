// Moves token rows to their experts and back: four uses of one plan, each the adjoint of another.
#pragma once

#include "comm/dispatch_plan.h"

namespace moesaic {

/// Letters as in backend.h; S slots of this rank. Every buffer of received rows is allocated with the full
/// capacity, so that memory does not depend on routing; use `.slice_rows(0, R)`.
class Dispatcher {
  public:
    /// `capacity_rows` as given to make_plan; `width` is H.
    Dispatcher(i64 capacity_rows, i64 width, int layer)
        : capacity_rows_(capacity_rows), width_(width), layer_(layer) {}

    /// Collective over mesh.experts(). x [T,H] -> rows of round `chunk`, grouped by local expert [R,H]
    /// (capacity [C,H]).
    [[nodiscard]] Tensor dispatch(StepContext&, const DispatchPlan&, std::size_t chunk,
                                  ConstTensorView x) const;
    /// Collective over mesh.experts(). The adjoint of dispatch: d_rows [R,H] -> this round's rows of d_slots
    /// [S,H].
    void dispatch_backward(StepContext&, const DispatchPlan&, std::size_t chunk, ConstTensorView d_rows,
                           TensorView d_slots) const;
    /// Collective over mesh.experts(). Experts' results [R,H] -> this round's rows of `slots` [S,H].
    void combine(StepContext&, const DispatchPlan&, std::size_t chunk, ConstTensorView rows,
                 TensorView slots) const;
    /// Collective over mesh.experts(). The adjoint of combine: d_slots [S,H] -> d_rows grouped by expert
    /// [R,H] (capacity [C,H]).
    [[nodiscard]] Tensor combine_backward(StepContext&, const DispatchPlan&, std::size_t chunk,
                                          ConstTensorView d_slots) const;

    [[nodiscard]] i64 capacity_rows() const { return capacity_rows_; }

  private:
    i64 capacity_rows_, width_;
    int layer_;
};

}  // namespace moesaic
