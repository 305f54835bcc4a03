// Compression bounds: a model that can be written in few bits generalizes; subsampling; smoothed log-loss.
#pragma once

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// Loss of a model with a prefix-free code of `bits`, fixed before the sample was seen.
struct CompressedModel {
    double samples = 1;     ///< training documents
    double train_loss = 0;  ///< mean over them, in units of `range` wide losses, e.g. bits per token
    double bits = 0;        ///< length of the code of the weights that were evaluated
    double range = 1;
    double delta = 0.05;
};

/// train_loss + range sqrt((bits ln2 + ln(1/delta))/(2n)). Source: Occam bound, e.g. Langford 2005.
[[nodiscard]] BoundResult occam_bound(const CompressedModel& input);
/// The same code through the kl inverse; never above occam_bound.
[[nodiscard]] BoundResult occam_kl_bound(const CompressedModel& input);
/// With the training loss itself estimated on `subsample` (s) documents, r = s/(s+n): train_loss + range (
/// sqrt((bits ln2 - ln(r delta))/(2n)) + sqrt(-ln((1-r) delta)/(2s)) ). Source: Lotfi et al., arXiv
/// 2312.17173 and its published code.
[[nodiscard]] BoundResult lotfi_bound(const CompressedModel& input, double subsample);

/// Length of a prefix-free code from that of a plain one: bits + 2 log2(bits); 0 and 1 stay.
[[nodiscard]] double prefix_free_bits(double bits);

/// Prediction smoothing: -log2((1-a) p + a/V) of a chance p among V tokens, bits; and the range of that loss,
/// log2(1 + (1-a) V/a). a in (0, 1). Source: Lotfi et al., arXiv 2312.17173.
[[nodiscard]] double smoothed_bits(double probability, double smoothing, double vocabulary);
[[nodiscard]] double smoothed_range(double smoothing, double vocabulary);

}  // namespace moesaic
