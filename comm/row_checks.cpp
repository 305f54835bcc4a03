#include "comm/row_checks.h"

namespace moesaic {

RowChecks& row_checks() noexcept {
    thread_local RowChecks checks;
    return checks;
}

}  // namespace moesaic
