// Checks across fields: what is learnt, by which kind of model, from which data.
#pragma once

#include "runtime/config/load.h"

namespace moesaic {

void check_task(LoadedConfig& loaded);

}  // namespace moesaic
