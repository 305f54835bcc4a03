// What tests of the configuration share: parsing a text, and expecting one mistake in it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/config/load.h"

namespace moesaic {

using Words = std::vector<std::string>;

inline LoadedConfig parse(const std::string& text, const Words& overrides = {}) {
    return parse_config(text, "c.yaml", overrides);
}

/// The text has exactly one mistake, at that place, in that key, saying that.
inline void expect_one(const LoadedConfig& loaded, const std::string& where, const std::string& key,
                       const std::string& message, const std::string& hint = "") {
    SCOPED_TRACE(loaded.diagnostics.text());
    ASSERT_EQ(loaded.diagnostics.list().size(), 1u);
    const Diagnostic& one = loaded.diagnostics.list().front();
    EXPECT_EQ(one.where, where);
    EXPECT_EQ(one.key, key);
    EXPECT_THAT(one.message, testing::HasSubstr(message));
    EXPECT_THAT(one.hint, testing::HasSubstr(hint));
}

}  // namespace moesaic
