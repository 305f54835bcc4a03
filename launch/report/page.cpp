#include "launch/report/page.h"

#include <fmt/format.h>

#include <cmath>

#include "launch/report/gnuplot.h"

namespace moesaic {

namespace {

constexpr std::string_view kStyle = R"css(
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 40px 0 8px; } h3 { font-size: 15px; margin: 0; }
p.subtitle, figcaption, .detail, .label { color: var(--muted); }
p.subtitle { margin: 2px 0 20px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; }
.tile .label, .tile .detail { font-size: 12.5px; } .tile .value { font-size: 20px; overflow-wrap: anywhere; }
figure { margin: 14px 0; padding: 12px 14px 10px; background: var(--card); border: 1px solid var(--line);
         border-radius: 6px; break-inside: avoid; }
figure svg { width: 100%; height: auto; display: block; margin-top: 4px; }
figure svg image { image-rendering: pixelated; }
figcaption { font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
ul.notes { border-left: 3px solid var(--warn); margin: 12px 0; padding: 2px 0 2px 26px; }
pre { font-size: 12.5px; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card); border: 1px solid var(--line);
      border-radius: 6px; padding: 10px 12px; }
summary { cursor: pointer; margin-top: 10px; }
@page { margin: 15mm; }
@media print { body { font-size: 11pt; } main { max-width: none; padding: 0; } h2 { break-after: avoid; }
               tr { break-inside: avoid; } .scroll { overflow: visible; } }
)css";

constexpr std::string_view kLight =
    "color-scheme: light; --page: #f8f7f3; --card: #ffffff; --line: #e3e2dc; --ink: #1f1f1d; --muted: "
    "#63625c; "
    "--warn: #b98500; ";
constexpr std::string_view kDark =
    "color-scheme: dark; --page: #161614; --card: #1f1f1d; --line: #393833; --ink: #f2f1ec; --muted: "
    "#b9b8b0; "
    "--warn: #d9a521; ";

}  // namespace

std::string html_escaped(std::string_view text) {
    std::string escaped;
    for (const char letter : text) {
        switch (letter) {
            case '&':
                escaped += "&amp;";
                break;
            case '<':
                escaped += "&lt;";
                break;
            case '>':
                escaped += "&gt;";
                break;
            case '"':
                escaped += "&quot;";
                break;
            case '\'':
                escaped += "&#39;";
                break;
            default:
                escaped += letter;
        }
    }
    return escaped;
}

Page::Page(std::string_view title, std::string_view subtitle) : title_(html_escaped(title)) {
    body_ = fmt::format("<h1>{}</h1>\n<p class=\"subtitle\">{}</p>\n", title_, html_escaped(subtitle));
}

void Page::section(std::string_view title) {
    body_ += fmt::format("<h2>{}</h2>\n", html_escaped(title));
}

void Page::paragraph(std::string_view text) {
    body_ += fmt::format("<p>{}</p>\n", html_escaped(text));
}

void Page::notes(const std::vector<std::string>& notes) {
    if (notes.empty()) return;
    body_ += "<ul class=\"notes\">\n";
    for (const std::string& note : notes) body_ += fmt::format("<li>{}</li>\n", html_escaped(note));
    body_ += "</ul>\n";
}

void Page::tiles(const std::vector<Tile>& tiles) {
    body_ += "<div class=\"tiles\">\n";
    for (const Tile& tile : tiles)
        body_ += fmt::format(
            "<div class=\"tile\"><div class=\"label\">{}</div><div class=\"value\">{}</div>"
            "<div class=\"detail\">{}</div></div>\n",
            html_escaped(tile.label), html_escaped(tile.value), html_escaped(tile.detail));
    body_ += "</div>\n";
}

void Page::figure(std::string_view title, std::string_view svg, std::string_view caption) {
    body_ += fmt::format("<figure>\n<h3>{}</h3>\n{}\n", html_escaped(title), svg);
    if (!caption.empty()) body_ += fmt::format("<figcaption>{}</figcaption>\n", html_escaped(caption));
    body_ += "</figure>\n";
}

void Page::table(const PageTable& table) {
    const auto row = [&](const std::vector<std::string>& cells, const char* tag) {
        body_ += "<tr>";
        for (std::size_t i = 0; i < cells.size(); ++i) {
            const bool number = i < table.numbers.size() && table.numbers[i];
            body_ += fmt::format("<{}{}>{}</{}>", tag, number ? " class=\"number\"" : "",
                                 html_escaped(cells[i]), tag);
        }
        body_ += "</tr>\n";
    };
    body_ += "<div class=\"scroll\"><table>\n<thead>";
    row(table.head, "th");
    body_ += "</thead>\n<tbody>\n";
    for (const auto& cells : table.rows) row(cells, "td");
    body_ += "</tbody></table></div>\n";
}

void Page::folded(std::string_view summary, std::string_view preformatted) {
    body_ += fmt::format("<details><summary>{}</summary>\n<pre>{}</pre></details>\n", html_escaped(summary),
                         html_escaped(preformatted));
}

std::string Page::html() const {
    return fmt::format(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        // Without an icon of its own a page makes the browser ask a server for one.
        "<link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n:root {{ {}{}}}\n"
        "@media screen and (prefers-color-scheme: dark) {{ :root {{ {}{}}} "
        "}}{}</style>\n</head>\n<body>\n<main>\n{}</main>\n"
        "</body>\n</html>\n",
        title_, kLight, figure_colours_css(false), kDark, figure_colours_css(true), kStyle, body_);
}

std::string shown(double value) {
    return std::isfinite(value) ? fmt::format("{:.4g}", value) : "-";
}

std::string shown_count(double value) {
    if (!std::isfinite(value)) return "-";
    constexpr std::pair<double, const char*> kUnits[] = {{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}};
    for (const auto& [size, unit] : kUnits)
        if (std::abs(value) >= size) return fmt::format("{:.3g}{}", value / size, unit);
    return fmt::format("{:.3g}", value);
}

}  // namespace moesaic
