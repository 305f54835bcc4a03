// moesaic report: one self-contained HTML file, or figure files, from the folder of a run or a study.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "launch/commands/commands.h"
#include "launch/report/run_figures.h"
#include "launch/report/run_page.h"
#include "launch/report/study_figures.h"
#include "launch/report/study_page.h"
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

std::vector<Drawing> drawings_of(const std::string& folder) {
    std::vector<Drawing> drawings;
    if (is_study_folder(folder)) {
        for (StudyFigure& figure :
             study_figures(read_study_table(folder + "/results.jsonl"), claimed_columns(folder)))
            drawings.push_back(std::move(figure.drawing));
        return drawings;
    }
    const RunHistory run = read_run(folder);
    for (const RunFigure& figure : run_figures())
        if (is_drawable(figure, run)) drawings.push_back(drawing_of(figure, run));
    return drawings;
}

void write_figures(const std::vector<Drawing>& drawings, const Gnuplot& gnuplot, const std::string& folder,
                   FigureFormat format) {
    make_folder(folder);
    for (const Drawing& drawing : drawings) {
        const std::string path = fmt::format("{}/{}.{}", folder, drawing.name, name_of(format));
        write_file_atomically(path, gnuplot.draw(drawing, format));
        fmt::print("{}\n", path);
    }
}

}  // namespace

int report_command(const ReportOptions& options) {
    const FigureFormat format = format_named(options.format);
    const bool study = is_study_folder(options.folder);
    RunHistory run;
    if (!study) run = read_run(options.folder);
    const Gnuplot gnuplot;
    if (!options.figures.empty())
        write_figures(drawings_of(options.folder), gnuplot, options.figures, format);
    if (!options.figures.empty() && options.out.empty()) return 0;
    const std::string path = options.out.empty() ? options.folder + "/report.html" : options.out;
    if (const std::string parent = fs::path(path).parent_path(); !parent.empty()) make_folder(parent);
    write_file_atomically(path, study ? study_page(options.folder, gnuplot) : run_page(run, gnuplot));
    fmt::print("{}\n", path);
    return 0;
}

}  // namespace moesaic
