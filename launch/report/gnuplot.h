// Figures are drawn by gnuplot: scripts in, files out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

/// Where a figure goes to. `page`: an SVG element whose colours are CSS variables.
enum class FigureFormat { page, svg, png, pdf };
[[nodiscard]] std::string_view name_of(FigureFormat format);

/// A gnuplot script without terminal and output. Colours are the string variables ink, muted, grid, s1 ... s8
/// (categories), and surface (what they are drawn on).
struct Drawing {
    std::string name;  ///< of letters, digits and underscores; tells the elements of a page apart
    std::string script;
    int width = 760, height = 340;  ///< pixels
};

class Gnuplot {
  public:
    /// Finds gnuplot on the search path; where it is missing, throws Error with the command that installs it.
    Gnuplot();

    /// The file as bytes. What gnuplot refuses is an Error with its words.
    [[nodiscard]] std::string draw(const Drawing& drawing, FigureFormat format) const;

  private:
    std::string program_;
};

/// The style sheet's variables that stand for the colours of a `page` figure: light ones, then dark ones.
[[nodiscard]] std::string figure_colours_css(bool dark);

/// A text between single quotes, as gnuplot reads it literally: one line, nothing substituted.
[[nodiscard]] std::string gnuplot_text(std::string_view text);

/// A plot under construction: settings, named data blocks and curves.
class PlotScript {
  public:
    PlotScript& set(std::string_view line);  ///< e.g. "logscale y"
    PlotScript& labels(std::string_view x, std::string_view y);
    /// A logarithmic axis ('x' or 'y') that ends a little beyond the values (of which those that are not
    /// positive have no place on it), with numbers at 1, 2 and 5 of each decade, or at decades where there
    /// are more than three.
    PlotScript& log_axis(char axis, std::vector<double> values);
    /// Columns of equal length; NaN is a gap. Returns the block's name.
    std::string data(const std::vector<std::vector<double>>& columns);
    /// e.g. curve("$d1 using 1:2 with lines lc rgb s1", "Train"); an empty title stays out of the key.
    PlotScript& curve(std::string_view what, std::string_view title);
    /// Ends this plot, so that the next settings and curves make another one (in a multiplot).
    PlotScript& end_plot();
    [[nodiscard]] std::string text() const;

  private:
    std::string text_, plot_;
    int blocks_ = 0;
};

}  // namespace moesaic
