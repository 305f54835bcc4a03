// What is to be known about the MPI library and the launcher, for people who look for a fault.
#pragma once

#include <map>
#include <string>

namespace moesaic {

struct MpiFacts {
    bool compiled = false;     ///< this build can talk MPI
    std::string library;       ///< first line of its own description, e.g. "Open MPI v4.1.4, package: ..."
    std::string kind;          ///< "Open MPI", "MPICH", "Intel MPI", or "" where it is none of those
    std::string standard;      ///< "3.1"
    std::string thread_level;  ///< "single" ... "multiple"; empty before MPI is initialised
    bool serialized = false;   ///< whether that level is enough for this program
    /// Settings that matter for speed, as the library holds them now (MPI_T control variables); empty before
    /// MPI is initialised, and without those that the library does not know.
    std::map<std::string, std::string> settings;
};

/// Not collective. May be called before and without MPI's initialisation.
[[nodiscard]] MpiFacts mpi_facts();

/// The kind of library that a description or the output of `mpirun --version` comes from, as MpiFacts::kind.
[[nodiscard]] std::string mpi_kind(const std::string& description);

}  // namespace moesaic
