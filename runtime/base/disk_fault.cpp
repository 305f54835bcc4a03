#include "runtime/base/disk_fault.h"

namespace moesaic {

DiskFault& disk_fault() noexcept {
    thread_local DiskFault fault;
    return fault;
}

}  // namespace moesaic
