#include "runtime/machine/os_release.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

/// The value of NAME=value, NAME="value" or NAME='value', with backslashes resolved.
std::string unquoted(const std::string& value) {
    if (value.size() < 2 || (value.front() != '"' && value.front() != '\'') || value.back() != value.front())
        return value;
    std::string text;
    for (std::size_t i = 1; i + 1 < value.size(); ++i) {
        if (value[i] == '\\' && i + 2 < value.size()) ++i;
        text += value[i];
    }
    return text;
}

OsRelease::Family family_of(const std::string& ids) {
    const auto names = split_text(ids, ' ');
    const auto any_of = [&](const auto& family) {
        return std::ranges::any_of(
            names, [&](const std::string& name) { return std::ranges::find(family, name) != family.end(); });
    };
    if (any_of(std::array{"debian", "ubuntu"})) return OsRelease::Family::debian;
    if (any_of(std::array{"rhel", "fedora", "centos", "rocky", "almalinux"}))
        return OsRelease::Family::redhat;
    return OsRelease::Family::other;
}

}  // namespace

int OsRelease::major() const {
    return std::atoi(version.c_str());
}

OsRelease read_os_release(const std::string& root) {
    auto text = read_text_file(root, "/etc/os-release");
    if (!text) text = read_text_file(root, "/usr/lib/os-release");
    OsRelease release;
    std::string like;
    for (const std::string& line : lines_of(text.value_or(""))) {
        const auto equals = line.find('=');
        if (equals == std::string::npos || line.front() == '#') continue;
        const std::string key = trimmed(line.substr(0, equals)),
                          value = unquoted(trimmed(line.substr(equals + 1)));
        if (key == "ID") release.id = value;
        if (key == "ID_LIKE") like = value;
        if (key == "VERSION_ID") release.version = value;
        if (key == "PRETTY_NAME") release.name = value;
    }
    release.family = family_of(release.id + " " + like);
    return release;
}

}  // namespace moesaic
