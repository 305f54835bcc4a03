#include "launch/report/gnuplot.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

#include "launch/doctor/advice.h"
#include "runtime/base/error.h"
#include "runtime/machine/os_release.h"
#include "runtime/machine/programs.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

constexpr double kDrawingTimeout = 60;  // seconds
constexpr std::string_view kComplete = "moesaic: drawn";

struct Colour {
    const char* variable;  // of gnuplot's scripts and, with "--figure-" before it, of the page
    const char *light, *dark;
};
// Eight categories that colour-blind readers tell apart in this order, on white and on near-black.
constexpr std::array kColours{
    Colour{"ink", "#1f1f1d", "#f2f1ec"},  Colour{"muted", "#63625c", "#b9b8b0"},
    Colour{"grid", "#e3e2dc", "#393833"}, Colour{"s1", "#2a78d6", "#5598e7"},
    Colour{"s2", "#d9591f", "#e5793f"},   Colour{"s3", "#148f63", "#27b483"},
    Colour{"s4", "#b98500", "#d9a521"},   Colour{"s5", "#7a4fc0", "#a68bea"},
    Colour{"s6", "#c94f86", "#e47aa8"},   Colour{"s7", "#3f7f1f", "#79b84f"},
    Colour{"s8", "#7d6a55", "#b8a187"},   Colour{"surface", "#ffffff", "#1f1f1d"},
};

/// Colours that stand for the n-th variable until the page is made; nobody draws in them.
std::string placeholder(std::size_t index) {
    return fmt::format("#0101{:02x}", index + 16);
}

std::string terminal(const Drawing& drawing, FigureFormat format) {
    switch (format) {
        case FigureFormat::page:
        case FigureFormat::svg:
            return fmt::format("svg size {},{} dynamic font 'sans-serif,13' {}", drawing.width,
                               drawing.height, format == FigureFormat::svg ? "background rgb '#ffffff'" : "");
        case FigureFormat::png:
            return fmt::format(
                "pngcairo size {},{} fontscale 2 linewidth 2 pointscale 2 font 'sans,10' "
                "background rgb '#ffffff'",
                2 * drawing.width, 2 * drawing.height);
        case FigureFormat::pdf:
            return fmt::format("pdfcairo size {:.2f}in,{:.2f}in font 'sans,9' background rgb '#ffffff'",
                               drawing.width / 110.0, drawing.height / 110.0);
    }
    return "";
}

std::string preamble(const Drawing& drawing, FigureFormat format, const std::string& output) {
    std::string text = fmt::format("set encoding utf8\nset terminal {}\nset output {}\n",
                                   terminal(drawing, format), gnuplot_text(output));
    for (std::size_t i = 0; i < kColours.size(); ++i)
        text += fmt::format("{} = '{}'\n", kColours[i].variable,
                            format == FigureFormat::page ? placeholder(i) : kColours[i].light);
    text +=
        "set termoption noenhanced\nset border 3 lc rgb muted lw 1\nset tics nomirror out textcolor rgb "
        "muted\n"
        "set grid ytics lt 1 lw 1 lc rgb grid\nset key outside top left horizontal Left reverse "
        "samplen 2 width 1 textcolor rgb ink\nset tics scale 0.5\nset datafile missing 'NaN'\n";
    return text;
}

/// The svg element alone, with CSS variables for colours, and names of its own.
std::string page_element(std::string svg, const Drawing& drawing) {
    svg.erase(0, svg.find("<svg"));
    // gnuplot writes the same colour as 'rgb(  1,   1,  16)' and "rgb(1,1,16)".
    static const std::regex colour(R"(rgb\(\s*1,\s*1,\s*(\d+)\))");
    std::string text;
    auto from = svg.cbegin();
    for (std::sregex_iterator found(svg.begin(), svg.end(), colour), end; found != end; ++found) {
        text.append(from, (*found)[0].first);
        const auto index = static_cast<std::size_t>(std::atoi((*found)[1].str().c_str())) - 16;
        MOESAIC_ASSERT(index < kColours.size(), "a colour of gnuplot's: {}", (*found)[0].str());
        text += fmt::format("var(--figure-{})", kColours[index].variable);
        from = (*found)[0].second;
    }
    text.append(from, svg.cend());
    const auto replace = [&](const char* pattern, const std::string& by) {
        text = std::regex_replace(text, std::regex(pattern), by);
    };
    replace("color=['\"]white['\"]", "color=\"var(--figure-surface)\"");  // behind marks on lines
    replace("color=\"(black|gray)\"", "color=\"var(--figure-ink)\"");
    replace("id=(['\"])(gp|gnuplot_|textbox|greybox)", "id=$1" + drawing.name + "_$2");
    replace("xlink:href='#gp", "xlink:href='#" + drawing.name + "_gp");
    replace("font-family=\"[^\"]*\"", "");  // the page's
    replace("<title>Gnuplot</title>\\s*<desc>[^<]*</desc>", "");
    return text;
}

/// A folder of its own that goes with it.
class WorkFolder {
  public:
    WorkFolder() {
        std::string pattern = (fs::temp_directory_path() / "moesaic_figure_XXXXXX").string();
        if (!::mkdtemp(pattern.data()))
            throw Error(fmt::format("{}: cannot make a folder for figures", pattern));
        path_ = pattern;
    }
    WorkFolder(const WorkFolder&) = delete;
    WorkFolder& operator=(const WorkFolder&) = delete;
    ~WorkFolder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string operator/(const char* name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};

}  // namespace

std::string_view name_of(FigureFormat format) {
    constexpr std::string_view kNames[] = {"page", "svg", "png", "pdf"};
    return kNames[static_cast<std::size_t>(format)];
}

Gnuplot::Gnuplot() {
    const auto program = find_program("gnuplot", search_path());
    if (!program)
        throw Error(fmt::format("gnuplot, which draws the figures, is not on PATH: {}",
                                install_advice(read_os_release(""), "gnuplot").text));
    program_ = *program;
}

std::string Gnuplot::draw(const Drawing& drawing, FigureFormat format) const {
    const WorkFolder folder;
    const std::string script = folder / "figure.gp", output = folder / "figure.out";
    std::ofstream(script, std::ios::binary) << preamble(drawing, format, output) << drawing.script
                                            << "unset output\nprint '" << kComplete << "'\n";
    // -d: no settings of the user's.
    const auto said = output_of({program_, "-d", script}, kDrawingTimeout);
    std::ifstream file(output, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(file), {}};
    // It stops at the first mistake, and closes what it has drawn until then.
    if (!said || bytes.empty() || said->find(kComplete) == std::string::npos)
        throw Error(fmt::format("gnuplot did not draw the figure '{}': {}", drawing.name,
                                said ? *said : "it could not be started, or did not end"));
    return format == FigureFormat::page ? page_element(std::move(bytes), drawing) : bytes;
}

std::string figure_colours_css(bool dark) {
    std::string text;
    for (const Colour& colour : kColours)
        text += fmt::format("--figure-{}: {}; ", colour.variable, dark ? colour.dark : colour.light);
    return text;
}

std::string gnuplot_text(std::string_view text) {
    std::string quoted = "'";
    for (const char letter : text) {
        if (letter == '\'') {
            quoted += "''";
        } else {
            quoted += static_cast<unsigned char>(letter) < 0x20 ? ' ' : letter;
        }
    }
    return quoted + "'";
}

PlotScript& PlotScript::set(std::string_view line) {
    text_ += fmt::format("set {}\n", line);
    return *this;
}

PlotScript& PlotScript::labels(std::string_view x, std::string_view y) {
    set(fmt::format("xlabel {} textcolor rgb muted", gnuplot_text(x)));
    return set(fmt::format("ylabel {} textcolor rgb muted", gnuplot_text(y)));
}

PlotScript& PlotScript::log_axis(char axis, std::vector<double> values) {
    set(fmt::format("logscale {}", axis)).set(fmt::format("format {} '%g'", axis));
    std::erase_if(values, [](double value) { return !(value > 0) || std::isinf(value); });
    if (values.empty()) return *this;
    const auto [least, most] = std::ranges::minmax(values);
    const double widening = std::max(std::pow(most / least, 0.04), 1.05);
    const double low = least / widening, high = most * widening;
    set(fmt::format("{}range [{}:{}]", axis, low, high));
    if (high / low > 1e3) return *this;
    std::vector<std::string> tics;
    for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10) {
        for (const double number : {decade, 2 * decade, 5 * decade})
            if (number >= low && number <= high) tics.push_back(fmt::format("{:.6g}", number));
    }
    if (tics.size() < 2) tics = {fmt::format("{:.3g}", least), fmt::format("{:.3g}", most)};
    return set(fmt::format("{}tics ({})", axis, fmt::join(tics, ", ")));
}

std::string PlotScript::data(const std::vector<std::vector<double>>& columns) {
    const std::string name = fmt::format("$d{}", ++blocks_);
    text_ += name + " << EOD\n";
    for (std::size_t row = 0; !columns.empty() && row < columns[0].size(); ++row) {
        for (const auto& column : columns)
            text_ += std::isfinite(column[row]) ? fmt::format("{} ", column[row]) : "NaN ";
        text_ += '\n';
    }
    text_ += "EOD\n";
    return name;
}

PlotScript& PlotScript::curve(std::string_view what, std::string_view title) {
    plot_ += fmt::format("{}{} {}", plot_.empty() ? "plot " : ", \\\n     ", what,
                         title.empty() ? "notitle" : "title " + gnuplot_text(title));
    return *this;
}

PlotScript& PlotScript::end_plot() {
    text_ += plot_ + "\n";
    plot_.clear();
    return *this;
}

std::string PlotScript::text() const {
    return text_ + plot_ + "\n";
}

}  // namespace moesaic
