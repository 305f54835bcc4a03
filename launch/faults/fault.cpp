#include "launch/faults/fault.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include "runtime/base/error.h"
#include "runtime/config/diagnostics.h"

namespace moesaic {

namespace {

struct Field {
    std::string_view name;
    std::function<bool(std::string_view, Fault&)> set;  // false: no such value
};

template <class T>
bool read_number(std::string_view text, T& number) {
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && number >= 0;
}

auto whole(i64 Fault::*member) {
    return [member](std::string_view text, Fault& fault) { return read_number(text, fault.*member); };
}

const std::vector<Field>& fields() {
    static const std::vector<Field> kFields{
        {"rank", whole(&Fault::rank)},
        {"layer", whole(&Fault::layer)},
        {"expert", whole(&Fault::expert)},
        {"shard", whole(&Fault::shard)},
        {"bit", whole(&Fault::bit)},
        {"step",
         [](std::string_view text, Fault& fault) {
             fault.step = 0;
             return read_number(text, *fault.step);
         }},
        {"seconds",
         [](std::string_view text, Fault& fault) {
             return read_number(text, fault.seconds) && std::isfinite(fault.seconds);
         }},
        {"in",
         [](std::string_view text, Fault& fault) {
             fault.where = text;
             const bool kill = fault.type == FaultType::kill;
             return text == (kill ? "step" : "gradient") || text == (kill ? "checkpoint" : "weight");
         }},
    };
    return kFields;
}

bool lists(std::string_view names, std::string_view name) {
    return fmt::format(" {} ", names).find(fmt::format(" {} ", name)) != std::string::npos;
}

class Parser {
  public:
    std::vector<Fault> parse(std::string_view text) {
        while (true) {
            const std::size_t comma = std::min(text.find(','), text.size());
            piece(text.substr(0, comma));
            if (comma == text.size()) break;
            text.remove_prefix(comma + 1);
        }
        complete();
        if (!mistakes_.empty())
            throw UserError(fmt::format("{}\nsee moesaic train --inject help", fmt::join(mistakes_, "\n")));
        return std::move(faults_);
    }

  private:
    void piece(std::string_view text) {
        const std::size_t colon = text.find(':'), equals = text.find('=');
        if (colon == std::string_view::npos && equals != std::string_view::npos) return field(text, equals);
        complete();
        begin(text.substr(0, std::min(colon, text.size())));
        if (colon == std::string_view::npos) return;
        const std::string_view first = text.substr(colon + 1);
        if (first.find('=') == std::string_view::npos) return complain("'{}' is no FIELD=VALUE", first);
        field(first, first.find('='));
    }

    void begin(std::string_view name) {
        const auto found = std::ranges::find(fault_table(), name, &FaultKind::name);
        given_.clear();
        kind_ = found == fault_table().end() ? nullptr : &*found;
        name_ = name;
        if (kind_ != nullptr) {
            faults_.push_back({});
            faults_.back().type = kind_->type;
            return;
        }
        std::vector<std::string> names;
        for (const FaultKind& kind : fault_table()) names.emplace_back(kind.name);
        const std::string near = nearest_name(name_, names);
        complain("there is no such fault; {}one of {}",
                 near.empty() ? "" : fmt::format("did you mean '{}'? ", near), fmt::join(names, ", "));
    }

    void field(std::string_view text, std::size_t equals) {
        const std::string_view name = text.substr(0, equals), value = text.substr(equals + 1);
        if (kind_ == nullptr) {
            if (name_.empty()) complain("'{}' stands before any fault", text);
            return;
        }
        if (!lists(kind_->needs, name) && !lists(kind_->may, name))
            return complain("has no field '{}'; it has {}", name,
                            fmt::format("{} {}", kind_->needs, kind_->may));
        if (lists(fmt::format("{}", fmt::join(given_, " ")), name))
            return complain("'{}' stands twice", name);
        given_.emplace_back(name);
        if (!std::ranges::find(fields(), name, &Field::name)->set(value, faults_.back()))
            complain("{}: '{}' is no value; {}", name, value, remedy(name));
    }

    [[nodiscard]] std::string remedy(std::string_view name) const {
        if (name != "in") return "a number that is not negative";
        return kind_->type == FaultType::kill ? "step or checkpoint" : "gradient or weight";
    }

    void complete() {
        if (kind_ == nullptr) return;
        std::string_view needs = kind_->needs;
        while (!needs.empty()) {
            const std::size_t end = std::min(needs.find(' '), needs.size());
            if (std::ranges::find(given_, needs.substr(0, end)) == given_.end())
                complain("needs {}=..., e.g. {}", needs.substr(0, end), kind_->example);
            needs.remove_prefix(std::min(end + 1, needs.size()));
        }
        kind_ = nullptr;
    }

    template <class... Args>
    void complain(fmt::format_string<Args...> format, Args&&... args) {
        mistakes_.push_back(fmt::format("--inject: {}{}{}", name_, name_.empty() ? "" : ": ",
                                        fmt::format(format, std::forward<Args>(args)...)));
    }

    std::vector<Fault> faults_;
    std::vector<std::string> mistakes_, given_;
    const FaultKind* kind_ = nullptr;
    std::string name_;
};

}  // namespace

std::vector<Fault> parse_faults(const std::string& orders) {
    return Parser().parse(orders);
}

namespace {

bool of_checkpoint(const Fault& fault) {
    return fault.type >= FaultType::truncate_checkpoint ||
           (fault.type == FaultType::kill && fault.where == "checkpoint");
}

/// Why a fault cannot be; every reason that is known.
std::vector<std::string> objections(const Fault& fault, const FaultyRun& run) {
    std::vector<std::string> reasons;
    const auto object = [&](bool wrong, std::string reason) {
        if (wrong) reasons.push_back(std::move(reason));
    };
    const TrainConfig& train = run.config.train;
    const FaultType type = fault.type;
    object(fault.rank >= run.world, fmt::format("there is no rank {} of {}", fault.rank, run.world));
    object(fault.shard >= run.world, fmt::format("there is no shard {} of {}", fault.shard, run.world));
    if (of_checkpoint(fault)) {
        const i64 step = fault.step.value_or(0);
        object(step > train.steps || (step % train.checkpoint_every != 0 && step != train.steps),
               fmt::format("step {} has no checkpoint: train.checkpoint_every is {}, train.steps {}", step,
                           train.checkpoint_every, train.steps));
    } else {
        object(*fault.step < 1 || *fault.step > train.steps,
               fmt::format("there is no step {} of {}", *fault.step, train.steps));
    }
    object(type == FaultType::kill && run.ranks_as_threads,
           "ranks that are threads die together; use mpirun");
    const bool waits = type == FaultType::hang || type == FaultType::wrong_order;
    object(waits && (run.world == 1 || run.ranks_as_threads), "needs several ranks under mpirun");
    object(type == FaultType::zero_tokens && run.world == 1, "needs a second rank that takes its tokens");
    const bool cells = run.spec.kind == ModelKind::momlp;
    object(type == FaultType::zero_tokens && cells, "a momlp gives each rank the samples of its cells");
    if (type == FaultType::nan) {
        const auto layer = static_cast<int>(std::min<i64>(fault.layer, run.spec.layers));
        object(cells, "a momlp has no layers of experts");
        object(!cells && (layer >= run.spec.layers || !run.spec.has_experts(layer)),
               fmt::format("layer {} has no experts", fault.layer));
        object(fault.expert >= run.spec.experts,
               fmt::format("there is no expert {} of {}", fault.expert, run.spec.experts));
    }
    if (type == FaultType::flip) {
        const bool beside = run.config.parallel.exchange == "shared_memory" ||
                            (run.config.parallel.exchange == "auto" && !run.config.parallel.checksums);
        object(run.expert_parallel == 1, "no rows travel: parallel.expert is 1");
        object(beside,
               "rows may not be sent at all where shared memory carries them; parallel.checksums: true, or "
               "parallel.exchange: flat, hierarchical or dedup");
    }
    return reasons;
}

}  // namespace

void check_faults(const std::vector<Fault>& faults, const FaultyRun& run) {
    std::vector<std::string> mistakes;
    for (const Fault& fault : faults) {
        for (const std::string& reason : objections(fault, run))
            mistakes.push_back(fmt::format("--inject: {}: {}", kind_of(fault.type).name, reason));
    }
    if (!mistakes.empty()) throw UserError(fmt::format("{}", fmt::join(mistakes, "\n")));
}

}  // namespace moesaic
