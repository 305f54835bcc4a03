// The checks of shared windows that stand in the suite of communicators.
#pragma once

#include "tests/conformance/communicator_suite.h"

namespace moesaic::conformance {

/// Collective over `world`, all of them.
void windows_hold_what_peers_write(Communicator& world, const Surroundings& at, Failures& failures);
void meetings_wait_for_the_last(Communicator& world, const Surroundings& at, Failures& failures);
void windows_of_a_part(Communicator& world, const Surroundings& at, Failures& failures);

}  // namespace moesaic::conformance
