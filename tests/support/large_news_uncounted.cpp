// In builds with a sanitizer, which has an operator new of its own.
#include "tests/support/large_news.h"

namespace moesaic {

i64 large_news() noexcept {
    return -1;
}

}  // namespace moesaic
