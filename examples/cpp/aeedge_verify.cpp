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
#include <numeric>
#include <string>

#include "bundle.hpp"
#include "rows.hpp"

namespace {

using aeedge::Bundle;
using aeedge::Error;
using aeedge::Values;

constexpr const char* kUsage = "usage: aeedge_verify BUNDLE [ROWS.csv]\n";
constexpr std::size_t kBlock = 1024;  // rows that are computed at once
constexpr double kRepeated = 0.02;    // of the tolerance: how much the same input may differ from call to call
constexpr double kLargest = 0.5;      // tolerance beside the size of what it is of

// The sample that uses the most of its tolerance.
struct Worst {
    double share = 0, error = 0, allowed = 0;
    std::size_t row = 0;
};

// The largest error of each sample may be atol + rtol times its largest expected value.
Worst compare(const std::vector<double>& got, const std::vector<double>& expected, std::size_t rows,
              aeedge::Tolerance limit) {
    const std::size_t size = expected.size() / rows;
    Worst worst;
    for (std::size_t row = 0; row < rows; ++row) {
        double error = 0, magnitude = 0;
        for (std::size_t i = row * size; i < (row + 1) * size; ++i) {
            const double a = got[i], b = expected[i];
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

bool same_bits(const Values& a, const Values& b) { return !std::memcmp(a.data(), b.data(), a.size() * sizeof(float)); }

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

    // Reconstructions are those of the variant's own latents.
    void check(const std::string& variant) {
        check(variant, "latent", [&] { return bundle_.encode(variant, input_); });
        if (bundle_.has("features", variant)) check(variant, "features", [&] { return bundle_.features(input_); });
        if (bundle_.has("decoder", variant)) {
            check(variant, "reconstruction", [&] { return bundle_.decode(variant, bundle_.encode(variant, input_)); });
        }
        if (bundle_.has_score(variant)) check(variant, "score", [&] { return bundle_.score(variant, input_); });
    }

private:
    Bundle& bundle_;
    std::FILE* out_;
    std::map<std::string, aeedge::Array> golden_;
    Values input_;
    std::size_t rows_;

    template <class Compute>
    void check(const std::string& variant, const std::string& what, Compute compute) const {
        const std::string where = bundle_.path.string() + " (" + variant + "): ";
        const auto limit = bundle_.variants.at(variant).tolerance.at(what);
        const Values expected = as_float(golden_.at(variant + "." + what));
        const auto features = golden_.find(variant + ".features");
        const Values x = features == golden_.end() ? input_ : as_float(features->second);

        const double size = root_mean_square(in_units(what, expected));
        if (what != "score" && size > 0 && limit.atol + limit.rtol * size > kLargest * size) {
            throw Error(where + "its tolerance of the " + what + " is too large beside the " + what + " itself");
        }
        const Values got = compute(), again = compute();
        if (compare(compared(what, again, x), compared(what, got, x), rows_, limit).share > kRepeated) {
            throw Error(where + "the " + what + " of the same input differs from call to call: it is random");
        }
        const Worst worst = compare(compared(what, got, x), compared(what, expected, x), rows_, limit);
        char text[160];
        if (!(worst.share <= 1)) {
            std::snprintf(text, sizeof text, " of reference row %zu (from 0) differs by %.3g, allowed are %.3g",
                          worst.row, worst.error, worst.allowed);
            throw Error(where + "on this machine the " + what + text + "; do not use this variant here");
        }
        std::snprintf(text, sizeof text, "within tolerance, uses %.2g %% of it", 100 * worst.share);
        std::fprintf(out_, "  %-5s %-15s %s\n", variant.c_str(), what.c_str(),
                     same_bits(got, expected) ? "equal to the bit" : text);
    }

    // Features and residuals are compared in units of the scale, so that small ones count as much as others.
    std::vector<double> in_units(const std::string& what, const Values& values) const {
        std::vector<double> found(values.begin(), values.end());
        for (std::size_t i = 0; i < found.size() && (what == "features" || what == "reconstruction"); ++i) {
            found[i] /= bundle_.scale[i % bundle_.scale.size()];
        }
        return found;
    }

    std::vector<double> compared(const std::string& what, Values values, const Values& x) const {
        for (std::size_t i = 0; i < values.size() && what == "reconstruction"; ++i) values[i] = x[i] - values[i];
        return in_units(what, values);
    }

    static double root_mean_square(const std::vector<double>& values) {
        return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0) /
                         static_cast<double>(values.size()));
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
        std::string said = error.what();
        for (char& c : said) c = static_cast<unsigned char>(c) < ' ' ? ' ' : c;  // one line, also of what others say
        std::cerr << "aeedge_verify: " << said << '\n';
        return 1;
    }
}
