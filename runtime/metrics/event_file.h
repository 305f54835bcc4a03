// TensorBoard's event files: records of numbers by step, as its readers expect them.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "runtime/metrics/append_file.h"

namespace moesaic {

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4).
[[nodiscard]] u32 crc32c(std::string_view bytes);

/// The values of one step under construction. Source of the field numbers: tensorflow/core/framework/
/// summary.proto and core/util/event.proto.
class EventSummary {
  public:
    void scalar(std::string_view tag, double value);
    /// Bar i of the histogram, of height counts[i], stands from i - 1/2 to i + 1/2.
    void bars(std::string_view tag, std::span<const i64> counts);
    void text(std::string_view tag, std::string_view markdown);
    [[nodiscard]] bool empty() const { return message_.empty(); }
    [[nodiscard]] const std::string& message() const { return message_; }  ///< a Summary

  private:
    std::string message_;
};

/// One file of a run; a resumed run goes on in another, which takes back what earlier files say of its steps.
class EventFile {
  public:
    /// Makes the folder and in it events.out.tfevents.SECONDS.HOST.PID.NUMBER.
    EventFile(const std::string& folder, i64 first_step);

    void add(i64 step, const EventSummary& summary);
    void sync() { file_.sync(); }

  private:
    AppendFile file_;

    void add_event(std::string_view event);
};

}  // namespace moesaic
