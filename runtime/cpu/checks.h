// What an operation expects of its operands, checked when it is enqueued.
#pragma once

#include <initializer_list>
#include <string_view>

#include "runtime/tensor.h"

namespace moesaic::cpu {

/// Where this thread's checks expect operands while the object lives, host memory otherwise: a back end of
/// another device has its operands checked here too (make_operand_checker).
class ExpectedDevice {
  public:
    explicit ExpectedDevice(Device device);
    ~ExpectedDevice();
    ExpectedDevice(const ExpectedDevice&) = delete;
    ExpectedDevice& operator=(const ExpectedDevice&) = delete;

  private:
    Device before_;
};

/// Aborts unless `view` reads as [rows, cols] of `dtype`; `name` is for the message, e.g. "rms_norm y".
void expect(ConstTensorView view, i64 rows, i64 cols, DType dtype, std::string_view name);
/// As above, for any number of rows and columns.
void expect(ConstTensorView view, DType dtype, std::string_view name);
/// Aborts unless `dtype` is f32 or f64.
void expect_real(DType dtype, std::string_view name);
/// Aborts unless `dtype` is f32, f64 or bf16.
void expect_stored(DType dtype, std::string_view name);

}  // namespace moesaic::cpu
