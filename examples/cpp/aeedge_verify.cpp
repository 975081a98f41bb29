// Checks a bundle of aeedge on this machine, and computes latents, scores and alarms of a CSV file.
//
//     aeedge_verify BUNDLE [ROWS.csv]
//
// Exit code: 0 all is right, 1 the bundle or the rows are not, 2 wrong usage.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>

#include "bundle.hpp"
#include "rows.hpp"

namespace {

using aeedge::Bundle;
using aeedge::Error;
using aeedge::Values;

constexpr const char* kUsage = "usage: aeedge_verify BUNDLE [ROWS.csv]\n";
constexpr std::size_t kBlock = 1024;  // rows that are computed at once

// The sample that uses the most of its tolerance.
struct Worst {
    double share = 0, error = 0, allowed = 0;
    std::size_t row = 0;
};

// The largest error of each sample may be atol + rtol times its largest reference value. `unit` divides each value of a
// sample; empty for none.
Worst compare(const Values& got, const Values& expected, std::size_t rows, aeedge::Tolerance limit,
              const Values& unit = {}) {
    const std::size_t size = expected.size() / rows;
    Worst worst;
    for (std::size_t row = 0; row < rows; ++row) {
        double error = 0, magnitude = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const double scale = unit.empty() ? 1 : unit[i];
            const double a = got[row * size + i] / scale, b = expected[row * size + i] / scale;
            if (std::isfinite(b)) magnitude = std::max(magnitude, std::abs(b));
            if (a == b || (std::isnan(a) && std::isnan(b))) continue;  // also equal infinities
            const double difference = std::abs(a - b);
            error = std::isnan(difference) ? INFINITY : std::max(error, difference);
        }
        const double allowed = limit.atol + limit.rtol * magnitude, share = error / std::max(allowed, 1e-300);
        if (row == 0 || share > worst.share) worst = {share, error, allowed, row};
    }
    return worst;
}

Values differences(const Values& x, const Values& reconstruction) {
    Values found(x.size());
    std::transform(x.begin(), x.end(), reconstruction.begin(), found.begin(), std::minus<>());
    return found;
}

std::size_t unequal_bits(const Values& got, const Values& expected) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < got.size(); ++i) count += std::memcmp(&got[i], &expected[i], sizeof(float)) != 0;
    return count;
}

Values as_float(const aeedge::Array& array) {
    if (array.descr == "<f4") return array.values<float>();
    if (array.descr == "<i2") {
        const auto found = array.values<std::int16_t>();
        return Values(found.begin(), found.end());
    }
    const auto found = array.values<std::uint8_t>();
    return Values(found.begin(), found.end());
}

// Runs the reference inputs, and compares what comes out with what is recorded.
class Reference {
public:
    Reference(Bundle& bundle, std::FILE* out) : bundle_(bundle), out_(out), golden_(bundle.golden()) {
        input_ = as_float(golden_.at("input"));
        rows_ = golden_.at("input").shape[0];
    }

    void check(const std::string& variant) {
        const Values latent = bundle_.encode(variant, input_);
        report(variant, "latent", latent, recorded(variant, "latent"));
        Values x = input_;
        if (bundle_.has("features", variant)) {
            x = recorded(variant, "features");
            report(variant, "features", bundle_.features(input_), x, bundle_.scale);
        }
        if (bundle_.has("decoder", variant)) {
            const Values got = bundle_.decode(variant, latent), expected = recorded(variant, "reconstruction");
            report(variant, "reconstruction", differences(x, got), differences(x, expected), bundle_.scale,
                   unequal_bits(got, expected));
        }
        if (bundle_.has_score(variant)) report(variant, "score", bundle_.score(variant, input_), recorded(variant, "score"));
    }

private:
    Bundle& bundle_;
    std::FILE* out_;
    std::map<std::string, aeedge::Array> golden_;
    Values input_;
    std::size_t rows_;

    Values recorded(const std::string& variant, const std::string& what) const {
        return as_float(golden_.at(variant + "." + what));
    }

    void report(const std::string& variant, const std::string& what, const Values& got, const Values& expected,
                const Values& unit = {}, std::optional<std::size_t> unequal = {}) const {
        const Worst worst = compare(got, expected, rows_, bundle_.variants.at(variant).tolerance.at(what), unit);
        if (!(worst.share <= 1)) {
            char text[160];
            std::snprintf(text, sizeof text, " of reference row %zu (from 0) differs by %.3g, allowed are %.3g",
                          worst.row, worst.error, worst.allowed);
            throw Error(bundle_.path.string() + " (" + variant + "): on this machine the " + what + text +
                        "; do not use this variant here");
        }
        if (unequal.value_or(unequal_bits(got, expected)) == 0) {
            std::fprintf(out_, "  %-5s %-15s equal to the bit\n", variant.c_str(), what.c_str());
        } else {
            std::fprintf(out_, "  %-5s %-15s within tolerance, uses %.2g %% of it\n", variant.c_str(), what.c_str(),
                         100 * worst.share);
        }
    }
};

void verify(Bundle& bundle, std::FILE* out) {
    std::fprintf(out, "%s\n  %-21s its own checksum is right\n", bundle.path.string().c_str(), "manifest.json");
    for (const auto& name : bundle.checked) std::fprintf(out, "  %-21s sha256 is right\n", name.c_str());
    Reference reference(bundle, out);
    for (const auto& [variant, of] : bundle.variants) reference.check(variant);
    std::fprintf(out, "verified with onnxruntime %s\n", OrtGetApiBase()->GetVersionString());
}

// Latents, scores and alarms of a file as a CSV, by the bundle's default variant.
void compute(Bundle& bundle, const std::string& file) {
    const auto rows = aeedge::read_rows(bundle, file);
    const std::string& variant = bundle.default_variant;
    const auto threshold = bundle.threshold(variant);
    const std::size_t size = rows.samples.size() / rows.count, latents = aeedge::product(bundle.latent_shape);
    if (rows.left_out) std::cerr << file << ": " << rows.left_out << " rows with missing values were left out\n";
    std::string text = rows.starts.empty() ? "" : "start,";
    for (std::size_t i = 0; i < latents; ++i) text += (i ? ",latent_" : "latent_") + std::to_string(i);
    if (bundle.has_score(variant)) text += threshold ? ",score,alarm" : ",score";
    std::puts(text.c_str());
    for (std::size_t at = 0; at < rows.count; at += kBlock) {
        const std::size_t end = std::min(at + kBlock, rows.count);
        const Values block(rows.samples.begin() + at * size, rows.samples.begin() + end * size);
        const Values latent = bundle.encode(variant, block);
        const Values score = bundle.has_score(variant) ? bundle.score(variant, block) : Values();
        for (std::size_t row = 0; row < end - at; ++row) {
            if (!rows.starts.empty()) std::printf("%zu,", rows.starts[at + row]);
            for (std::size_t i = 0; i < latents; ++i) std::printf(i ? ",%.9g" : "%.9g", latent[row * latents + i]);
            if (!score.empty()) std::printf(",%.9g", score[row]);
            if (!score.empty() && threshold) std::printf(",%d", !(score[row] <= *threshold));  // NaN alarms
            std::putchar('\n');
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    const bool wants_help = argc == 2 && (!std::strcmp(argv[1], "--help") || !std::strcmp(argv[1], "-h"));
    if (wants_help || argc < 2 || argc > 3 || argv[1][0] == '-') {
        std::fputs(kUsage, wants_help ? stdout : stderr);
        return wants_help ? 0 : 2;
    }
    try {
        Bundle bundle(argv[1]);
        verify(bundle, argc == 3 ? stderr : stdout);  // with rows, standard output is a CSV
        if (argc == 3) compute(bundle, argv[2]);
        return 0;
    } catch (const std::exception& error) {
        std::cerr << "aeedge_verify: " << error.what() << '\n';
        return 1;
    }
}
