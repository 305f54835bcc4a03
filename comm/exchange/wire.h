// One all-to-all of rows between two pieces of work on compute, in the type that the wire has.
#pragma once

#include <optional>

#include "comm/communicator.h"
#include "comm/step_context.h"

namespace moesaic {

/// What one rank sends and receives. `most_...` bound the rows for every routing.
struct TransferRows {
    ConstTensorView send;
    Counts send_rows;
    i64 most_sent = 0;
    TensorView recv;
    Counts recv_rows;
    i64 most_received = 0;
};

/// Under way.
struct Transfer {
    Tensor sent;                      ///< memory that the wire still reads, if it is to live so long
    Tensor narrow_sent, narrow_recv;  ///< the same rows in the wire's type
    TensorView recv;
    i64 received = 0;
    Event arrived;  ///< on the exchange stream
};

/// Rows are converted for the wire and back, rounded once to nearest even; a type of the rows' own costs
/// nothing and changes no bit.
class Wire {
  public:
    /// Empty: the type of the rows.
    explicit Wire(std::optional<DType> type = std::nullopt) : type_(type) {}

    /// Collective over `group`. After all work so far on compute. `counts` and views are as for
    /// all_to_all_rows.
    [[nodiscard]] Transfer start(StepContext&, Communicator& group, const TransferRows&, Label) const;
    /// From here on compute may read what was received, and reuse what was sent.
    static void finish(StepContext&, Transfer&);
    /// Collective over `group`. Both.
    void exchange(StepContext&, Communicator& group, const TransferRows&, Label) const;

  private:
    std::optional<DType> type_;
};

/// Memory for rows on their way between ranks.
[[nodiscard]] Tensor travel_buffer(StepContext&, Shape, DType);

}  // namespace moesaic
