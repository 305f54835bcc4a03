// The tables of configs/README.md are what the program itself says; MOESAIC_UPDATE_GOLDEN=1 rewrites them.
#include <gtest/gtest.h>

#include "runtime/config/load.h"
#include "tests/support/golden_table.h"

namespace moesaic {
namespace {

TEST(ConfigReference, ReadmeListsEveryKey) {
    expect_golden_table("configs/README.md", "keys", config_reference());
}

TEST(ConfigReference, ReadmeSaysWhatThisVersionLacks) {
    expect_golden_table("configs/README.md", "this version", version_limits());
}

}  // namespace
}  // namespace moesaic
