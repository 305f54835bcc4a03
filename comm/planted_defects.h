// Mistakes that can be switched on: the mutation tests prove that `verify` sees each of them.
#pragma once

namespace moesaic {

/// Used by mutation tests to prove that `verify` sees each of them; never set by a configuration.
struct PlantedDefects {
    bool norm_skips_experts = false;    ///< the clip norm leaves out the experts' gradients
    double expert_gradient_factor = 1;  ///< experts' gradients are wrong by this factor
    bool local_balance_loss = false;    ///< the balance loss sees this rank's tokens only
};

}  // namespace moesaic
