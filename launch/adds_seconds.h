// Adds up what a piece of work takes.
#pragma once

#include <chrono>

namespace moesaic {

/// Adds its life, in seconds of the wall clock, to a sum that outlives it.
class AddsSeconds {
  public:
    explicit AddsSeconds(double& seconds) : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
    ~AddsSeconds() {
        seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    AddsSeconds(const AddsSeconds&) = delete;
    AddsSeconds& operator=(const AddsSeconds&) = delete;

  private:
    double& seconds_;
    std::chrono::steady_clock::time_point start_;
};

}  // namespace moesaic
