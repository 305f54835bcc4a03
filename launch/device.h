// Which device a run computes on.
#pragma once

#include "comm/communicator.h"
#include "launch/rank_runtime.h"
#include "runtime/backend.h"

namespace moesaic {

/// Collective over `world` where run.device is not cpu: all ranks compute on GPUs or none does. `auto` is a
/// GPU where every rank has one, and says once why it is not. Dry runs and deferred streams are the host's.
/// Throws UserError on every rank where `cuda` was asked for and a rank has none.
[[nodiscard]] std::unique_ptr<Backend> make_device_backend(const Config& config, Communicator& world,
                                                           StreamMode mode, const RuntimeOptions& options);

/// Whether that may be a GPU: what a dry run on the host has to allow for.
[[nodiscard]] bool may_compute_on_gpu(const Config& config);

/// Collective over `world`. What moves the device's memory between ranks (parallel.comm): NCCL's communicator
/// of the same ranks, or null where `world` itself does. `auto` is NCCL where several ranks compute on GPUs
/// and it works, and says once why it does not. Throws UserError on every rank where `nccl` was asked for and
/// cannot be.
[[nodiscard]] std::unique_ptr<Communicator> make_device_world(const Config& config, const Backend& backend,
                                                              Communicator& world);

}  // namespace moesaic
