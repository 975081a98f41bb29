// Samples of a CSV file for a bundle.
//
// The file is plain: commas, decimal points, no quotes, one row for each sample, flat in C order; of a signal one row
// for each point in time. With a header, columns are found by the bundle's names, if any, and others passed over.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace aeedge {

struct Rows {
    Values samples;               // (n, *input_shape)
    std::vector<std::size_t> starts;  // of windows of a signal: the first row of each, counted from 0
    std::size_t count = 0, left_out = 0;
};

namespace detail {

inline std::string trimmed(const std::string& text) {
    const auto from = text.find_first_not_of(" \t\r"), to = text.find_last_not_of(" \t\r");
    return from == std::string::npos ? "" : text.substr(from, to - from + 1);
}

inline std::vector<std::string> cells(const std::string& line) {
    std::vector<std::string> found;
    std::istringstream stream(line + ",");
    for (std::string cell; std::getline(stream, cell, ',');) found.push_back(trimmed(cell));
    return found;
}

// Whether a cell is a number; an empty one is NaN.
inline bool parse(const std::string& cell, float& value) {
    char* end = nullptr;
    const double number = std::strtod(cell.c_str(), &end);
    value = cell.empty() ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(number);
    return *end == '\0';
}

inline std::vector<std::size_t> columns(const std::vector<std::string>& header, const std::vector<std::string>& names,
                                        std::size_t width, bool has_names, const std::string& file) {
    std::vector<std::size_t> found;
    if (has_names && !names.empty()) {
        for (const auto& name : names) {
            const auto at = std::find(header.begin(), header.end(), name);
            if (at == header.end()) throw Error(file + ": it has no column '" + name + "', which the bundle needs");
            found.push_back(at - header.begin());
        }
        return found;
    }
    if (header.size() != width) {
        throw Error(file + ": it has " + std::to_string(header.size()) + " columns, the bundle needs " +
                    std::to_string(width));
    }
    for (std::size_t i = 0; i < width; ++i) found.push_back(i);
    return found;
}

// All numbers of a table, (rows, width).
inline Values table(const std::string& file, const std::vector<std::string>& names, std::size_t width) {
    std::ifstream stream(file);
    if (!stream) throw Error(file + ": it cannot be read");
    Values values;
    std::vector<std::size_t> picked;
    std::size_t number = 0, cells_in_line = 0;
    for (std::string line; std::getline(stream, line);) {
        ++number;
        if (number == 1 && line.rfind("\xef\xbb\xbf", 0) == 0) line.erase(0, 3);
        if (trimmed(line).empty()) continue;
        const auto found = cells(line);
        float value = 0;
        if (picked.empty()) {
            const bool is_header =
                !std::all_of(found.begin(), found.end(), [&](const auto& cell) { return parse(cell, value); });
            picked = columns(found, names, width, is_header, file);
            cells_in_line = found.size();
            if (is_header) continue;
        }
        if (found.size() != cells_in_line) {
            throw Error(file + ", line " + std::to_string(number) + ": it has " + std::to_string(found.size()) +
                        " columns, those before have " + std::to_string(cells_in_line));
        }
        for (const auto at : picked) {
            if (!parse(found[at], value)) {
                throw Error(file + ", line " + std::to_string(number) + ": '" + found[at] + "' is no number");
            }
            values.push_back(value);
        }
    }
    if (values.empty()) throw Error(file + ": it has no rows");
    return values;
}

// Position of a value in a flat sample, by its name, or by that position as text.
inline std::size_t position(const json& input, const std::string& name, std::size_t size) {
    const json features = input.value("features", json());
    for (std::size_t i = 0; features.is_array() && i < features.size(); ++i) {
        if (features[i] == name) return i;
    }
    char* end = nullptr;
    const auto found = std::strtoull(name.c_str(), &end, 10);
    if (!name.empty() && *end == '\0' && found < size) return found;
    throw Error("the manifest has codes for no value '" + name + "'");
}

// Windows of a recording, one row of it for each point in time.
inline Values windows(const Bundle& bundle, const json& signal, const std::string& file, Rows& rows) {
    if (!signal.at("calendar").empty()) {
        throw Error(file + ": this program makes no calendar channels, which the bundle needs");
    }
    const auto names = signal.at("channels").get<std::vector<std::string>>();
    const std::size_t width = names.size(), window = signal.at("window"), hop = signal.at("hop");
    const Shape shape = {static_cast<std::int64_t>(window), static_cast<std::int64_t>(width)};
    if (shape != bundle.input_shape || hop < 1) throw Error("the manifest has windows that are no samples");
    const Values values = table(file, names, width);
    Values samples;
    for (std::size_t start = 0; (start + window) * width <= values.size(); start += hop) {
        samples.insert(samples.end(), values.begin() + start * width, values.begin() + (start + window) * width);
        rows.starts.push_back(start);
    }
    if (samples.empty()) throw Error(file + ": it is shorter than a window of " + std::to_string(window) + " rows");
    return samples;
}

}  // namespace detail

// The samples of a file, missing values filled or their samples left out as the bundle says. Throws Error.
inline Rows read_rows(const Bundle& bundle, const std::string& file) {
    const json& input = bundle.manifest["input"];
    const json signal = input.value("signal", json()), missing = input.value("missing", json());
    const std::size_t size = product(bundle.input_shape);
    Rows rows;
    Values samples;
    if (signal.is_object()) {
        samples = detail::windows(bundle, signal, file, rows);
    } else {
        const json features = input.value("features", json());
        samples = detail::table(file, features.is_array() ? features.get<std::vector<std::string>>()
                                                          : std::vector<std::string>(), size);
    }
    const bool drop = missing.is_object() && missing.at("policy") == "drop";
    const Values fill = missing.is_object() && !drop ? missing.at("fill").get<Values>() : Values();
    if (!fill.empty() && fill.size() != size) throw Error("the manifest has a fill of another size than a sample");
    std::vector<Values> codes(size);
    if (missing.is_object() && missing.contains("codes")) {
        for (const auto& [name, of] : missing["codes"].items()) {
            codes[detail::position(input, name, size)] = of.get<Values>();
        }
    }
    const double low = bundle.dtype == "uint8" ? 0 : -32768, high = bundle.dtype == "uint8" ? 255 : 32767;
    std::vector<std::size_t> starts;
    for (std::size_t row = 0; row * size < samples.size(); ++row) {
        Values sample(samples.begin() + row * size, samples.begin() + (row + 1) * size);
        bool is_dropped = false;
        for (std::size_t i = 0; i < size; ++i) {
            const auto& of = codes[i];
            const bool is_missing = std::isnan(sample[i]) || std::find(of.begin(), of.end(), sample[i]) != of.end();
            if (is_missing && !fill.empty()) sample[i] = fill.at(i);
            if (is_missing && drop) is_dropped = true;
            if (is_dropped) break;
            const bool fits = bundle.dtype == "float32"
                                  ? std::isfinite(sample[i])
                                  : std::rint(sample[i]) == sample[i] && sample[i] >= low && sample[i] <= high;
            if (!fits) {
                throw Error(file + ": value " + std::to_string(i) + " of sample " + std::to_string(row) +
                            " (both from 0) is " + (std::isnan(sample[i]) ? "missing" : "no " + bundle.dtype));
            }
        }
        if (is_dropped) {
            ++rows.left_out;
            continue;
        }
        rows.samples.insert(rows.samples.end(), sample.begin(), sample.end());
        if (!rows.starts.empty()) starts.push_back(rows.starts[row]);
        ++rows.count;
    }
    rows.starts = starts;
    if (!rows.count) throw Error(file + ": all its rows have missing values");
    return rows;
}

}  // namespace aeedge
