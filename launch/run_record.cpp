#include "launch/run_record.h"

#include <unistd.h>

#include "launch/trainer.h"
#include "layers/balance.h"
#include "layers/capacity.h"
#include "runtime/base/build_info.h"
#include "runtime/config/load.h"

namespace moesaic {

namespace {

std::string host_name() {
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

}  // namespace

RunRecord run_record(const RankRuntime& runtime, const RunSetup& run) {
    const ParameterCounts counts = count_parameters(run.spec);
    RunRecord record;
    record.version = kVersion;
    record.commit = kCommit;
    record.config = to_yaml(run.config);
    record.world_size = runtime.mesh->world().size();
    record.expert_parallel = runtime.mesh->expert_parallel();
    record.expert_tensor = runtime.mesh->expert_tensor();
    record.data_parallel = runtime.mesh->replicas().size();
    record.device = runtime.backend->name();
    record.host = host_name();
    record.parameters = counts.total;
    record.active_parameters = counts.active;
    record.training_samples = run.dataset->training_windows();
    record.unit = run.unit.name;
    record.unit_reason = run.unit.reason;
    if (run.spec.kind != ModelKind::momlp) record.balance = describe_balance(run.spec);
    if (run.spec.capacity) record.capacity = describe_capacity(run.spec);
    return record;
}

}  // namespace moesaic
