// Tests of vector kernels once per instruction set.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <string>

#include "runtime/base/types.h"

namespace moesaic {

/// Kernels are those of the parameter, one of Highway's targets.
class CpuTargetTest : public ::testing::TestWithParam<i64> {
  protected:
    void SetUp() override {
        if ((hwy::SupportedTargets() & GetParam()) == 0) GTEST_SKIP() << "not on this CPU";
        hwy::SetSupportedTargetsForTest(GetParam() | HWY_SCALAR | HWY_EMU128);
    }
    void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

inline std::string name_of_target(const ::testing::TestParamInfo<i64>& test) {
    return hwy::TargetName(test.param);
}

}  // namespace moesaic
