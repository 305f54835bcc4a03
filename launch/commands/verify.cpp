// moesaic verify: the layout certificate as a table and an exit code.
#include <cstdio>

#include "launch/commands/commands.h"
#include "launch/layout_check.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"

namespace moesaic {

namespace {

const char* mark(bool good) {
    return good ? "yes" : "NO";
}

void print_table(const std::vector<LayoutResult>& results) {
    std::printf("%5s %6s  %-12s %-8s %-8s %-9s %-10s %-10s %-10s %-10s %-8s %s\n", "ranks", "expert", "loss",
                "bits", "routing", "one norm", "norm", "balance", "gradient", "later", "experts'", "verdict");
    std::printf("%5s %6s  %-12s %-8s %-8s %-9s %-10s %-10s %-10s %-10s %-8s\n", "", "par.", "step 1", "equal",
                "equal", "on ranks", "vs f64", "vs 1 rank", "vs f64", "losses", "bits");
    for (const LayoutResult& one : results) {
        const bool unreplicated = one.world == one.expert_parallel;
        std::printf("%5d %6d  %-12.8f %-8s %-8s %-9s %-10.1e %-10.1e %-10.1e %-10.1e %-8s %s\n", one.world,
                    one.expert_parallel, one.loss, mark(one.loss_bits), mark(one.routing_equal),
                    mark(one.norm_same_on_ranks), one.norm_difference, one.balance_difference,
                    one.gradient_difference, one.later_loss_difference,
                    unreplicated ? mark(one.expert_bits) : "-", one.ok ? "ok" : one.why.c_str());
    }
}

void print_json(const std::vector<LayoutResult>& results, bool ok) {
    std::printf("{\"ok\":%s,\"layouts\":[", ok ? "true" : "false");
    for (std::size_t i = 0; i < results.size(); ++i) {
        const LayoutResult& one = results[i];
        std::printf(
            "%s{\"world_size\":%d,\"expert_parallel\":%d,\"loss\":%.17g,\"loss_aux\":%.17g,\"loss_z\":%.17g,"
            "\"grad_norm\":%.17g,"
            "\"loss_bits_equal\":%s,\"routing_equal\":%s,\"norm_equal_on_ranks\":%s,\"expert_bits_equal\":%s,"
            "\"norm_difference\":%.6g,\"balance_difference\":%.6g,\"gradient_difference\":%.6g,\"worst_"
            "tensor\":\"%s\","
            "\"later_loss_difference\":%.6g,\"ok\":%s,\"why\":\"%s\"}",
            i ? "," : "", one.world, one.expert_parallel, one.loss, one.loss_aux, one.loss_z, one.grad_norm,
            one.loss_bits ? "true" : "false", one.routing_equal ? "true" : "false",
            one.norm_same_on_ranks ? "true" : "false", one.expert_bits ? "true" : "false",
            one.norm_difference, one.balance_difference, one.gradient_difference, one.worst_tensor.c_str(),
            one.later_loss_difference, one.ok ? "true" : "false", one.why.c_str());
    }
    std::printf("]}\n");
}

}  // namespace

int verify_command(const VerifyOptions& options) {
    return run_on_ranks(0, [&](Communicator& world) {
        if (world.size() > 1)
            throw UserError("verify makes its own ranks as threads: start it without mpirun");
        const RunSetup run = load_run(options.config, options.overrides);
        LayoutCheckOptions check;
        check.worlds = options.layouts;
        check.steps = options.steps;
        for (const int ranks : check.worlds) {
            if (ranks < 1)
                throw UserError(fmt::format("--layouts: {} is no number of ranks; e.g. 1,2,4", ranks));
        }
        const std::vector<LayoutResult> results = check_layouts(run, check);
        bool ok = true;
        for (const LayoutResult& one : results) ok = ok && one.ok;
        if (options.json) {
            print_json(results, ok);
        } else {
            print_table(results);
            std::printf("%s: %zu layouts, %s\n", options.config.c_str(), results.size(),
                        ok ? "all numbers independent of the layout" : "NOT independent of the layout");
        }
        return ok ? 0 : 3;
    });
}

}  // namespace moesaic
