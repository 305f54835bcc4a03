// moesaic verify: the layout certificate as a table and an exit code.
#include <cstdio>

#include "launch/commands/commands.h"
#include "launch/layout_check.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

const char* mark(bool good) {
    return good ? "yes" : "NO";
}

void print_table(const std::vector<LayoutResult>& results) {
    std::printf("%5s %6s  %-12s %-8s %-8s %-9s %-10s %-10s %-10s %-10s %-10s %-8s %-8s %s\n", "ranks",
                "expert", "loss", "bits", "routing", "one norm", "norm", "balance", "gradient", "gradient",
                "later", "experts'", "weights'", "verdict");
    const int smallest = results.empty() ? 1 : results.front().smallest;
    const std::string one_rank = fmt::format("vs {} rank{}", smallest, smallest == 1 ? "" : "s");
    std::printf("%5s %6s  %-12s %-8s %-8s %-9s %-10s %-10s %-10s %-10s %-10s %-8s %-8s\n", "", "par.",
                "step 1", "equal", "equal", "on ranks", "vs f64", one_rank.c_str(), "vs f64",
                one_rank.c_str(), "losses", "bits", "bits");
    for (const LayoutResult& one : results) {
        std::printf("%5d %6d  %-12.8f %-8s %-8s %-9s %-10.1e %-10.1e %-10.1e %-10.1e %-10.1e %-8s %-8s %s\n",
                    one.world, one.expert_parallel, one.loss, mark(one.loss_bits), mark(one.routing_equal),
                    mark(one.norm_same_on_ranks), one.norm_difference, one.balance_difference,
                    one.gradient_difference, one.layout_difference, one.later_loss_difference,
                    one.expert_bits ? mark(*one.expert_bits) : "-", mark(one.weight_bits),
                    one.ok ? "ok" : one.why.c_str());
    }
}

void print_json(const std::vector<LayoutResult>& results, const std::vector<LeftOutLayout>& left_out,
                bool ok) {
    std::string layouts;
    for (const LayoutResult& one : results) {
        JsonLine line;
        line.field("world_size", one.world).field("expert_parallel", one.expert_parallel);
        line.field("expert_tensor", one.smallest);
        line.field("loss", one.loss).field("loss_aux", one.loss_aux).field("loss_z", one.loss_z);
        line.field("grad_norm", one.grad_norm).field("loss_bits_equal", one.loss_bits);
        line.field("loss_difference", one.loss_difference);
        line.field("routing_equal", one.routing_equal).field("norm_equal_on_ranks", one.norm_same_on_ranks);
        line.field("expert_bits_equal", one.expert_bits.value_or(true))
            .field("norm_difference", one.norm_difference);
        line.field("balance_difference", one.balance_difference);
        line.field("gradient_difference", one.gradient_difference).field("worst_tensor", one.worst_tensor);
        line.field("layout_difference", one.layout_difference);
        line.field("worst_layout_tensor", one.worst_layout_tensor);
        line.field("later_loss_difference", one.later_loss_difference);
        line.field("weight_bits_equal", one.weight_bits);
        line.field("ok", one.ok).field("why", one.why);
        layouts += (layouts.empty() ? "" : ",") + line.text();
    }
    std::string others;
    for (const LeftOutLayout& one : left_out) {
        JsonLine line;
        line.field("world_size", one.world).field("expert_parallel", one.expert_parallel);
        line.field("why", one.why);
        others += (others.empty() ? "" : ",") + line.text();
    }
    std::printf("{\"ok\":%s,\"layouts\":[%s],\"left_out\":[%s]}\n", ok ? "true" : "false", layouts.c_str(),
                others.c_str());
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
        const std::vector<LeftOutLayout> left_out = left_out_layouts(run, check.worlds);
        bool ok = true;
        for (const LayoutResult& one : results) ok = ok && one.ok;
        if (options.json) {
            print_json(results, left_out, ok);
        } else {
            print_table(results);
            for (const LeftOutLayout& one : left_out) std::printf("left out: %s\n", text_of(one).c_str());
            const bool to_the_bit = run.config.cpu.gemm == "own" || run.config.train.precision != "fp32";
            std::printf("%s: %zu layouts, %s%s\n", options.config.c_str(), results.size(),
                        ok ? "all numbers independent of the layout" : "NOT independent of the layout",
                        to_the_bit ? "" : ", compared to rounding: bits need cpu.gemm: own");
        }
        return ok ? 0 : 3;
    });
}

}  // namespace moesaic
