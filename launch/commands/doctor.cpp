// moesaic doctor: what this machine and this MPI allocation offer, and what is missing.
#include <cstdio>

#include "launch/commands/commands.h"
#include "launch/doctor/doctor.h"
#include "launch/ranks.h"

namespace moesaic {

int doctor_command(const DoctorCommandOptions& options) {
    DoctorOptions how;
    how.quick = options.quick;
    how.out = options.out;
    how.ranks_as_threads = options.ranks_as_threads > 0;
    how.launch = mpi_launch();
    return run_on_ranks(options.ranks_as_threads, [&](Communicator& world) {
        const Diagnosis diagnosis = examine(world, how);
        if (world.rank() != 0) return 0;
        const std::string text = options.json ? diagnosis_json(diagnosis) + "\n" : diagnosis_text(diagnosis);
        std::fputs(text.c_str(), stdout);
        return all_well(diagnosis.findings) ? 0 : 3;
    });
}

}  // namespace moesaic
