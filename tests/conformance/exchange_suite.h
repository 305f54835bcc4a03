// Every exchange of the table on the ranks of a communicator, whatever kind it is of.
#pragma once

#include "comm/communicator.h"
#include "tests/conformance/communicator_suite.h"

namespace moesaic::conformance {

/// Collective over `world`. On one node and on every number of simulated nodes: rows, results and gradients
/// of uneven routings against an oracle without exchange, to the last bit.
void check_exchanges(Communicator& world, StreamMode mode, Failures& failures);

}  // namespace moesaic::conformance
