// moesaic report: one self-contained HTML file, or figure files, from a run folder.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "launch/commands/commands.h"
#include "launch/report/run_figures.h"
#include "launch/report/run_page.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

FigureFormat format_named(const std::string& name) {
    for (const FigureFormat format : {FigureFormat::svg, FigureFormat::png, FigureFormat::pdf})
        if (name_of(format) == name) return format;
    throw UserError(fmt::format("--format: '{}' is no format of figures; one of: svg, png, pdf", name));
}

void make_folder(const std::string& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw Error(fmt::format("{}: cannot make the folder: {}", folder, error.message()));
}

void write_figures(const RunHistory& run, const Gnuplot& gnuplot, const std::string& folder,
                   FigureFormat format) {
    make_folder(folder);
    for (const RunFigure& figure : run_figures()) {
        if (!is_drawable(figure, run)) continue;
        const std::string path = fmt::format("{}/{}.{}", folder, figure.name, name_of(format));
        write_file_atomically(path, gnuplot.draw(drawing_of(figure, run), format));
        fmt::print("{}\n", path);
    }
}

}  // namespace

int report_command(const ReportOptions& options) {
    const FigureFormat format = format_named(options.format);
    const RunHistory run = read_run(options.folder);
    const Gnuplot gnuplot;
    if (!options.figures.empty()) write_figures(run, gnuplot, options.figures, format);
    if (!options.figures.empty() && options.out.empty()) return 0;
    const std::string path = options.out.empty() ? options.folder + "/report.html" : options.out;
    if (const std::string parent = fs::path(path).parent_path(); !parent.empty()) make_folder(parent);
    write_file_atomically(path, run_page(run, gnuplot));
    fmt::print("{}\n", path);
    return 0;
}

}  // namespace moesaic
