// Checks of the section model.moe.router.
#pragma once

#include "runtime/config/load.h"

namespace moesaic {

[[nodiscard]] bool is_one_of(const std::string& word, const Choices& words);

/// A part of validate(), for models with experts.
void check_router(LoadedConfig& loaded, Purpose purpose);

}  // namespace moesaic
