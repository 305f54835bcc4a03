// moesaic convert import: a Hugging Face folder becomes a run folder.
#include <cstdio>

#include "launch/commands/commands.h"
#include "launch/convert/declared_parameters.h"
#include "launch/convert/imported_run.h"
#include "launch/rank_runtime.h"
#include "launch/trainer.h"
#include "runtime/base/log.h"

namespace moesaic {

int convert_import_command(const ConvertImportOptions& options) {
    const WeightSource source = WeightSource::open_huggingface(options.source);
    for (const std::string& warning : source.warnings) log_warn("{}", warning);
    Config config = source.config;
    const ImportedTokenizer tokenizer = imported_tokenizer(source, options.out);
    config.task.data.tokenizer = tokenizer.name;
    config = run_config(config, options.out, options.overrides, Purpose::inference);
    const ModelSpec spec = resolve_model(config, *source.config.model.vocabulary);
    source.require_plausible(spec);
    const std::vector<Parameter> parameters = declared_parameters(spec);
    source.require(spec, parameters);
    std::vector<PlannedTensor> tensors;
    tensors.reserve(parameters.size());
    for (const Parameter& parameter : parameters) {
        PlannedTensor& tensor = tensors.emplace_back();
        tensor.name = parameter.name;
        tensor.shape = extents_of(parameter.shape);
        tensor.source = source.find(parameter.name);
    }
    const bool same_tokenizer = config.task.data.tokenizer == tokenizer.name;  // --set may say another
    write_run_folder(options.out, config, same_tokenizer ? tokenizer.fingerprint : "", tensors,
                     companions(source));
    std::printf("imported %s: %zu tensors, %lld parameters\n", source.description.c_str(), tensors.size(),
                static_cast<long long>(count_parameters(spec).total));
    std::printf("  run folder    %s (step 0)\n", options.out.c_str());
    std::printf("  train it      moesaic train %s/config.yaml --resume %s\n", options.out.c_str(),
                options.out.c_str());
    return 0;
}

}  // namespace moesaic
