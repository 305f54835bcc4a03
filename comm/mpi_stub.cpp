// Stands in for mpi_bare.cpp, mpi_communicator.cpp and mpi_facts.cpp in builds without MPI.
#include "comm/mpi_bare.h"
#include "comm/mpi_communicator.h"
#include "comm/mpi_facts.h"

namespace moesaic {

namespace {

[[noreturn]] void refuse() {
    throw UserError(
        "this moesaic was built without MPI and cannot be one of several MPI ranks: install libopenmpi-dev "
        "and openmpi-bin and build again, or use --ranks-as-threads");
}

}  // namespace

bool mpi_available() {
    return false;
}

std::string mpi_library() {
    return {};
}

MpiFacts mpi_facts() {
    return {};
}

std::unique_ptr<BareAllToAll> make_bare_all_to_all(i64) {
    return nullptr;
}

MpiSession::MpiSession() : exceptions_at_start_(0) {
    refuse();
}

MpiSession::~MpiSession() = default;

std::unique_ptr<Communicator> make_mpi_world(double) {
    refuse();
}

int run_mpi_rank(const std::function<int(Communicator&)>&, double) {
    refuse();
}

}  // namespace moesaic
