// The logits of given token ids, as a file.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "runtime/config/config.h"

namespace moesaic {

/// Collective over the world. Reads token ids [N,T] (see read_token_rows) and writes float32 [N,T,V]: what
/// the checkpoint's model says of the token that follows each. Every sequence begins at position 0. Needs
/// neither data nor tokenizer.
void write_logits(const Config& config, const std::string& checkpoint, const std::string& tokens_file,
                  const std::string& logits_file, Communicator& world);

}  // namespace moesaic
