#include "launch/report/domain_map.h"

#include <fmt/format.h>

#include <algorithm>

#include "launch/report/gnuplot.h"
#include "launch/report/load_map.h"

namespace moesaic {

namespace {

constexpr std::size_t kMostDomains = 12;

std::vector<const RecordedDomains*> layers_with_domains(const RunHistory& run) {
    std::vector<i64> places;
    for (i64 i = 0; i < std::ssize(run.domains); ++i) places.push_back(i);
    std::vector<const RecordedDomains*> layers;
    for (const i64 place : evenly_chosen(places, kMostPanels))
        layers.push_back(&run.domains[static_cast<std::size_t>(place)]);
    return layers;
}

std::size_t shown_domains(const RunHistory& run) {
    return run.domains.empty() ? 1 : std::min(kMostDomains, run.domains.front().names.size());
}

int panel_height(const RunHistory& run) {
    return 40 + 26 * static_cast<int>(shown_domains(run));
}

/// A name as short as the margin is wide.
std::string stem_of_name(const std::string& name) {
    constexpr std::size_t kLetters = 14;
    const std::string stem = name.substr(0, name.rfind('.') == 0 ? name.size() : name.rfind('.'));
    return stem.size() <= kLetters ? stem : stem.substr(0, kLetters);
}

void add_panel(PlotScript& plot, const RecordedDomains& layer, std::size_t domains, bool with_names) {
    const std::size_t experts = layer.share.front().size();
    std::vector<double> expert, row, relative;
    std::string names = with_names ? "" : "'' 0";  // an empty list would mean numbers
    for (std::size_t domain = 0; domain < domains; ++domain) {
        if (with_names)
            names += fmt::format("{}{} {}", domain > 0 ? ", " : "",
                                 gnuplot_text(stem_of_name(layer.names[domain])), domain);
        for (std::size_t e = 0; e < layer.share[domain].size(); ++e) {
            expert.push_back(static_cast<double>(e));
            row.push_back(static_cast<double>(domain));
            relative.push_back(layer.share[domain][e] * static_cast<double>(experts));
        }
    }
    plot.set(fmt::format("xrange [-0.5:{}]", static_cast<double>(experts) - 0.5));
    plot.set(fmt::format("yrange [-0.5:{}]", static_cast<double>(domains) - 0.5));
    plot.set(fmt::format("ytics ({}) scale 0 textcolor rgb muted", names));
    plot.curve(plot.data({expert, row, relative}) +
                   " using 1:2:(0.5):(0.5):3 with boxxyerror fs solid noborder lc palette",
               "");
    plot.end_plot();
}

}  // namespace

std::string domain_map_script(const RunHistory& run) {
    const std::vector<const RecordedDomains*> layers = layers_with_domains(run);
    const double height = domain_map_height(run);
    PlotScript plot;
    plot.set(fmt::format("multiplot layout {},{} margins 0.15,0.90,{:.3f},{:.3f} spacing 0.03,{:.3f}",
                         panel_rows(layers.size()), kPanelColumns, 56 / height, 1 - 26 / height,
                         62 / height));
    set_relative_colours(plot);
    plot.set("grid noxtics noytics").set("border 0").set("xtics 1 scale 0 textcolor rgb muted");
    if (!run.domains.empty() && run.domains.front().share.front().size() > 16)
        plot.set("xtics autofreq scale 0 textcolor rgb muted");
    plot.set("format x '%.0f'");
    for (std::size_t panel = 0; panel < layers.size(); ++panel) {
        const bool last_row = panel + kPanelColumns >= layers.size();
        plot.set(last_row ? "xlabel 'expert' textcolor rgb muted" : "xlabel ''");
        plot.set(fmt::format("title {} textcolor rgb ink offset 0,-0.6",
                             gnuplot_text(fmt::format("layer {}: {:.3f} nats, p {:.2g}", layers[panel]->layer,
                                                      layers[panel]->information, layers[panel]->p_value))));
        add_panel(plot, *layers[panel], std::min(shown_domains(run), layers[panel]->names.size()),
                  panel % kPanelColumns == 0);
    }
    return plot.text() + "unset multiplot\n";
}

int domain_map_height(const RunHistory& run) {
    return 82 + panel_height(run) +
           (panel_height(run) + 62) * (panel_rows(layers_with_domains(run).size()) - 1);
}

}  // namespace moesaic
