// Tests of vector kernels once per instruction set.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <string>

#include "runtime/base/types.h"

namespace moesaic {

inline bool cpu_has_target(i64 target) {
    return (hwy::SupportedTargets() & target) != 0;
}
/// Kernels are those of one of Highway's targets.
inline void use_target(i64 target) {
    hwy::SetSupportedTargetsForTest(target | HWY_SCALAR | HWY_EMU128);
}
inline void use_all_targets() {
    hwy::SetSupportedTargetsForTest(0);
}

/// Kernels are those of the parameter.
class CpuTargetTest : public ::testing::TestWithParam<i64> {
  protected:
    void SetUp() override {
        if (!cpu_has_target(GetParam())) GTEST_SKIP() << "not on this CPU";
        use_target(GetParam());
    }
    void TearDown() override { use_all_targets(); }
};

inline std::string name_of_target(const ::testing::TestParamInfo<i64>& test) {
    return hwy::TargetName(test.param);
}

}  // namespace moesaic
