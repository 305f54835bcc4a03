#include "runtime/metrics/prometheus_sink.h"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <chrono>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/base/log.h"

namespace moesaic {

namespace {

/// A field of a record as Prometheus names it: base units, ratios.
struct ExportedField {
    std::string_view field;
    const char *name, *help;
    double scale = 1;
};
constexpr std::array kStepFields{
    ExportedField{"step", "moesaic_step", "Newest training step that was recorded."},
    ExportedField{"loss", "moesaic_loss", "Training loss of that step, without balance losses."},
    ExportedField{"loss_aux", "moesaic_balance_loss", "Load-balance loss without its coefficient."},
    ExportedField{"loss_z", "moesaic_router_z_loss", "Router z-loss without its coefficient."},
    ExportedField{"grad_norm", "moesaic_gradient_norm", "L2 norm of the gradient before clipping."},
    ExportedField{"lr", "moesaic_learning_rate", "Learning rate."},
    ExportedField{"tokens_per_s", "moesaic_tokens_per_second", "Tokens, or examples, trained on a second."},
    ExportedField{"step_ms", "moesaic_step_seconds", "Time of a step, of the slowest rank.", 1e-3},
    ExportedField{"exchange_ms", "moesaic_exchange_seconds",
                  "Time of a step in the exchange of rows, waiting included, of the slowest rank.", 1e-3},
    ExportedField{"exchange_bytes", "moesaic_exchange_bytes",
                  "Bytes that rows take between ranks in a step."},
    ExportedField{"flops_utilization", "moesaic_flops_utilization_ratio",
                  "Model FLOPs over the measured peak."},
    ExportedField{"load_max_over_mean", "moesaic_load_max_over_mean_ratio",
                  "Busiest expert over the mean, of the worst layer."},
    ExportedField{"rank_load_max_over_mean", "moesaic_rank_load_max_over_mean_ratio",
                  "Fullest expert-parallel rank over the mean, of the worst layer."},
    ExportedField{"dropped_fraction", "moesaic_dropped_ratio", "Share of the choices that were dropped."},
    ExportedField{"memory_bytes", "moesaic_memory_bytes", "Memory of tensors, of the largest rank."},
    ExportedField{"slowest_rank", "moesaic_slowest_rank", "Rank with the most work of its own."},
    ExportedField{"slowest_excess_ms", "moesaic_slowest_excess_seconds",
                  "Its own work in a step beyond the mean of the ranks.", 1e-3},
};
constexpr std::array kEvalFields{
    ExportedField{"heldout_loss", "moesaic_heldout_loss", "Loss of held-out data."},
    ExportedField{"train_probe_loss", "moesaic_train_probe_loss", "Loss of training data already seen."},
    ExportedField{"gap", "moesaic_generalization_gap", "Held-out minus training loss."},
    ExportedField{"heldout_error", "moesaic_heldout_error_ratio", "Held-out answers that are wrong."},
};
constexpr std::array kLayerFields{
    ExportedField{"max_over_mean", "moesaic_layer_load_max_over_mean_ratio", "Busiest expert over the mean."},
    ExportedField{"evenness", "moesaic_layer_load_evenness_ratio",
                  "Evenness of a layer's load: 1 even, 0 all on the same experts."},
    ExportedField{"dead", "moesaic_layer_idle_experts", "Experts of a layer without tokens in that step."},
    ExportedField{"router_entropy", "moesaic_layer_router_entropy_nats", "Mean entropy of the router."},
};

using Labels = prometheus::Labels;

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::unique_ptr<prometheus::Exposer> listen(const std::string& where) {
    try {
        return std::make_unique<prometheus::Exposer>(where, 1);
    } catch (const std::exception&) {
        const std::size_t colon = where.rfind(':');
        throw UserError(
            fmt::format("metrics.prometheus: cannot listen on {} port {}: in use, or no address of this "
                        "machine; give another metrics.prometheus.port, or 0 for any that is free",
                        where.substr(0, colon), where.substr(colon + 1)));
    }
}

}  // namespace

struct PrometheusSink::Page {
    explicit Page(const SinkOptions& options)
        : run{{"run", options.name}},
          address(options.prometheus_listen.substr(0, options.prometheus_listen.rfind(':'))),
          exposer(listen(options.prometheus_listen)) {
        exposer->RegisterCollectable(registry);
    }

    void set(const char* name, const char* help, double value, const Labels& labels = {}) {
        prometheus::BuildGauge().Name(name).Help(help).Labels(run).Register(*registry).Add(labels).Set(value);
    }
    prometheus::Counter& counter(const char* name, const char* help, const Labels& labels = {}) {
        return prometheus::BuildCounter().Name(name).Help(help).Labels(run).Register(*registry).Add(labels);
    }
    /// The fields of a record that the table names; those without a value stay away.
    template <class Record, std::size_t n>
    void set_fields(const Record& record, const std::array<ExportedField, n>& table, const Labels& labels) {
        record.fields([&](std::string_view name, const auto& value) {
            for (const ExportedField& field : table) {
                if (field.field == name) set_number(field, value, labels);
            }
        });
    }

    Labels run;
    std::string address;
    std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
    double tokens = 0;
    std::unique_ptr<prometheus::Exposer> exposer;  // last: ends before what it shows

  private:
    void set_number(const ExportedField& field, double value, const Labels& labels) {
        set(field.name, field.help, field.scale * value, labels);
    }
    void set_number(const ExportedField& field, i64 value, const Labels& labels) {
        set_number(field, static_cast<double>(value), labels);
    }
    template <class T>
    void set_number(const ExportedField& field, const std::optional<T>& value, const Labels& labels) {
        if (value) set_number(field, *value, labels);
    }
    template <class T>
    void set_number(const ExportedField&, const T&, const Labels&) {}
};

PrometheusSink::PrometheusSink(const SinkOptions& options) : page_(std::make_unique<Page>(options)) {}

PrometheusSink::~PrometheusSink() = default;

int PrometheusSink::port() const {
    return page_->exposer->GetListeningPorts().front();
}

void PrometheusSink::write(const RunRecord& record) {
    log_info("Prometheus: http://{}:{}/metrics", page_->address, port());
    page_->set("moesaic_run_info", "What runs where; 1.", 1,
               {{"version", record.version},
                {"commit", record.commit},
                {"device", record.device},
                {"host", record.host},
                {"expert_parallel", std::to_string(record.expert_parallel)}});
    page_->set("moesaic_ranks", "Ranks of the run.", static_cast<double>(record.world_size));
    page_->set("moesaic_parameters", "Weights of the model.", static_cast<double>(record.parameters));
}

void PrometheusSink::write(const StepRecord& record) {
    page_->set_fields(record, kStepFields, {});
    const auto tokens = static_cast<double>(record.tokens);
    page_->counter("moesaic_tokens_total", "Tokens, or examples, that training has seen.")
        .Increment(std::max(0.0, tokens - page_->tokens));
    page_->tokens = tokens;
    page_->set("moesaic_record_timestamp_seconds", "When that step was recorded; what stands still hangs.",
               seconds_now());
    for (const auto& [name, bound] : record.bounds)
        page_->set("moesaic_bound", "Upper limits of losses on new data.", bound.value, {{"bound", name}});
}

void PrometheusSink::write(const ExpertsRecord& record) {
    page_->set_fields(record, kLayerFields, {{"layer", std::to_string(record.layer)}});
}

void PrometheusSink::write(const EvalRecord& record) {
    page_->set_fields(record, kEvalFields, {});
    page_->set("moesaic_evaluation_step", "Step of the newest evaluation.", static_cast<double>(record.step));
    for (const auto& [name, bound] : record.bounds)
        page_->set("moesaic_bound", "Upper limits of losses on new data.", bound.value, {{"bound", name}});
}

void PrometheusSink::write(const AlarmRecord& record) {
    page_->counter("moesaic_alarms_total", "Alarms that were raised.", {{"kind", record.kind}}).Increment();
}

void PrometheusSink::write(const CheckpointRecord& record) {
    page_->set("moesaic_checkpoint_step", "Step of the newest checkpoint.", static_cast<double>(record.step));
    page_->set("moesaic_checkpoint_bytes", "Its size.", static_cast<double>(record.bytes));
    page_->set("moesaic_checkpoint_seconds", "Time that writing it took.", record.seconds);
}

}  // namespace moesaic
