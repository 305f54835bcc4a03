// Of the program whose kernels are instrumented and that interprets PTX.
#include <cstdlib>

#include "tests/cuda_host/modes.h"
#include "tests/cuda_host/ptx_program.h"

namespace cuda_host {

namespace {

constexpr std::int64_t kSmallCase = 4000;

Mode interpreted(int architecture) {
    Mode mode{"ptx_" + std::to_string(architecture), Layer::ptx, {.check = true}};
    mode.settings.translate = [=](const std::string& symbol, const std::vector<std::byte>& parameters) {
        return PtxProgram::of(architecture).translation()(symbol, parameters);  // read when it is wanted
    };
    return mode;
}

}  // namespace

std::vector<Mode> modes() {
    std::vector<Mode> all{{"checked", Layer::checked, {.check = true}}};
    for (const int architecture : {80, 90})
        if (PtxProgram::is_there(architecture)) all.push_back(interpreted(architecture));
    return all;
}

std::vector<Mode> table_modes() {
    const char* const wanted = std::getenv("MOESAIC_EMULATOR_SEEDS");
    const int seeds = wanted ? std::atoi(wanted) : 1;
    std::vector<Mode> runs;
    for (Mode mode : modes()) {
        if (mode.name == "ptx_80" && !wanted) continue;  // differs from sm_90's in a few instructions
        for (int seed = 2; seed < 2 + seeds; ++seed) {
            mode.settings.seed = static_cast<std::uint64_t>(seed);
            Mode& run = runs.emplace_back(mode);
            run.name += "_seed_" + std::to_string(seed);
            if (seed > 2) run.most_elements = kSmallCase;
        }
    }
    return runs;
}

}  // namespace cuda_host
