// Documents in JSON Lines: one object a line, one of whose members is the text.
#pragma once

#include <functional>
#include <string>

#include "runtime/base/mapped_file.h"

namespace moesaic {

/// Calls `document` with the text of every line, in order; lines of nothing but white space are passed over.
/// UserError "file:line: ..." for a line that is not a JSON object (invalid UTF-8 included), has no member
/// `key`, or another thing than a string in it, and for one of more than 256 MiB.
void read_jsonl(const MappedFile& file, const std::string& key,
                const std::function<void(const std::string& text)>& document);

}  // namespace moesaic
