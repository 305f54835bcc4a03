// How this binary was compiled and what it can do; written by CMake into the file that holds the commit.
#pragma once

namespace moesaic {

extern const char* const kBuildType;      ///< "Release", "Debug", or "" where none was chosen
extern const char* const kCompilerFlags;  ///< of that build type, without those of our own targets
extern const char* const kSanitizers;     ///< "address,undefined"; empty: none
extern const bool kHavePrometheus;        ///< metrics.sinks: prometheus

}  // namespace moesaic
