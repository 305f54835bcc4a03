// One self-contained HTML page: style sheet, figures and tables inside, no script and nothing to fetch.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

[[nodiscard]] std::string html_escaped(std::string_view text);

/// A table of texts; columns that hold numbers are set to the right.
struct PageTable {
    std::vector<std::string> head;
    std::vector<std::vector<std::string>> rows;
    std::vector<bool> numbers;  ///< by column; missing ones are texts
};

class Page {
  public:
    Page(std::string_view title, std::string_view subtitle);

    // All texts are plain and escaped here.
    void section(std::string_view title);
    void paragraph(std::string_view text);
    void notes(const std::vector<std::string>& notes);  ///< nothing where there are none
    struct Tile {
        std::string label, value, detail;
    };
    void tiles(const std::vector<Tile>& tiles);
    /// `svg` is markup of our own making.
    void figure(std::string_view title, std::string_view svg, std::string_view caption);
    void table(const PageTable& table);
    void folded(std::string_view summary, std::string_view preformatted);

    [[nodiscard]] std::string html() const;

  private:
    std::string title_, body_;
};

/// A number for people: four digits, "-" where it is not finite.
[[nodiscard]] std::string shown(double value);
/// "1.2 M", "34.5 k": counts for people.
[[nodiscard]] std::string shown_count(double value);

}  // namespace moesaic
