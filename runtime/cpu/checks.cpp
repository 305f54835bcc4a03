#include "runtime/cpu/checks.h"

namespace moesaic::cpu {

namespace {
thread_local Device expected_device = Device::cpu;
}  // namespace

ExpectedDevice::ExpectedDevice(Device device) : before_(expected_device) {
    expected_device = device;
}
ExpectedDevice::~ExpectedDevice() {
    expected_device = before_;
}

void expect(ConstTensorView view, i64 rows, i64 cols, DType dtype, std::string_view name) {
    MOESAIC_ASSERT(view.rows() == rows && view.elements() == rows * cols, "{} is {}, not [{},{}]", name,
                   view.shape.text(), rows, cols);
    expect(view, dtype, name);
}

void expect(ConstTensorView view, DType dtype, std::string_view name) {
    MOESAIC_ASSERT(view.dtype == dtype, "{} holds {}, not {}", name, name_of(view.dtype), name_of(dtype));
    MOESAIC_ASSERT(view.device == expected_device || view.elements() == 0, "{} is not in {} memory", name,
                   expected_device == Device::cpu ? "host" : "device");
    MOESAIC_ASSERT(view.data || view.elements() == 0, "{} {} has no memory", name, view.shape.text());
}

void expect_real(DType dtype, std::string_view name) {
    MOESAIC_ASSERT(dtype == DType::f32 || dtype == DType::f64, "{} works on reals, not {}", name,
                   name_of(dtype));
}

void expect_stored(DType dtype, std::string_view name) {
    MOESAIC_ASSERT(dtype == DType::f32 || dtype == DType::f64 || dtype == DType::bf16,
                   "{} works on reals or bf16, not {}", name, name_of(dtype));
}

}  // namespace moesaic::cpu
