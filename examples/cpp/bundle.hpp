// A bundle of aeedge: checked when it is opened, then samples to latents, reconstructions and scores.
// The format: docs/reference/bundle-format.md.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "npz.hpp"
#include "sha256.hpp"

namespace aeedge {

using nlohmann::json;

// Samples (n, *shape) of the bundle's dtype, in C order. They are kept as float32, which holds uint8 and int16 exactly.
using Values = std::vector<float>;

struct File {
    std::string sha256;
    std::uintmax_t bytes;
};

struct Tolerance {
    double rtol, atol;
};

struct Variant {
    std::map<std::string, File> graphs;  // of "encoder", "decoder" and "scorer"
    std::map<std::string, Tolerance> tolerance;
};

namespace detail {

inline std::string read_file(const std::filesystem::path& path, std::optional<std::uintmax_t> expected = {}) {
    std::error_code failed;
    const auto size = std::filesystem::file_size(path, failed);
    if (failed) throw Error(path.string() + ": it cannot be read; copy the bundle again");
    if (expected && size != *expected) {
        throw Error(path.string() + ": it has " + std::to_string(size) + " bytes, expected " +
                    std::to_string(*expected) + "; copy the bundle again");
    }
    if (!expected && size > (64u << 20)) throw Error(path.string() + ": it is too large for a manifest");
    std::ifstream stream(path, std::ios::binary);
    std::string data((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    if (data.size() != size) throw Error(path.string() + ": it cannot be read");
    return data;
}

// A number or nested lists, to values in C order; `shape` grows by the lists' lengths.
inline void flatten(const json& node, std::size_t depth, Shape& shape, Values& values) {
    if (!node.is_array()) {
        if (depth != shape.size()) throw Error("lists of different depth");
        values.push_back(node.get<float>());
        return;
    }
    const auto size = static_cast<std::int64_t>(node.size());
    if (depth == shape.size() && values.empty()) shape.push_back(size);
    if (depth >= shape.size() || shape[depth] != size) throw Error("lists of different length");
    for (const json& item : node) flatten(item, depth + 1, shape, values);
}

// Values of one shape repeated to another, as numpy broadcasts: axes are matched from the last, and those of 1 repeat.
inline Values broadcast(const Values& values, const Shape& from, const Shape& to) {
    if (from.size() > to.size()) throw Error("more axes than a sample");
    const std::size_t lead = to.size() - from.size();
    Values found(product(to));
    for (std::size_t i = 0; i < found.size(); ++i) {
        std::size_t left = i, at = 0, stride = 1;
        for (std::size_t axis = to.size(); axis-- > lead;) {
            const auto size = static_cast<std::size_t>(from[axis - lead]), index = left % to[axis];
            if (size != 1 && from[axis - lead] != to[axis]) throw Error("a shape that does not fit a sample");
            at += (size == 1 ? 0 : index) * stride;
            stride *= size;
            left /= to[axis];
        }
        found[i] = values[at];
    }
    return found;
}

inline std::vector<int> release(const std::string& version) {
    std::vector<int> numbers;
    for (const char* at = version.c_str(); *at >= '0' && *at <= '9' && numbers.size() < 3;) {
        char* end = nullptr;
        numbers.push_back(static_cast<int>(std::strtol(at, &end, 10)));
        at = *end == '.' ? end + 1 : end;
    }
    return numbers;
}

}  // namespace detail

class Bundle {
public:
    std::filesystem::path path;
    json manifest;
    Shape input_shape, latent_shape, features_shape;  // of one sample; features are samples without a front end
    std::string dtype;                                // "float32", "uint8" or "int16"
    std::map<std::string, Variant> variants;          // "fp32", "int8"
    std::string default_variant;
    Values scale;              // of residuals, in the shape of features
    std::vector<std::string> checked;  // names of the files that were compared with the manifest

    // Reads everything and compares it with the checksums. Throws Error.
    explicit Bundle(std::filesystem::path folder) : path(std::move(folder)) {
        if (!OrtGetApiBase()->GetApi(ORT_API_VERSION)) {
            throw Error(std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString() +
                        " is older than the headers that this program was compiled with");
        }
        const std::string place = (path / "manifest.json").string();
        const std::string data = detail::read_file(place);
        std::map<std::string, File> entries;
        try {
            manifest = json::parse(data);
            check_format();
            check_seal(data);
            read_manifest();
            entries = files();
        } catch (const json::exception& error) {
            std::string said = error.what();  // it quotes the file, which may be damaged
            for (char& c : said) c = static_cast<unsigned char>(c) < 128 ? c : '?';
            throw Error(place + ": " + said + "; copy the bundle again");
        } catch (const Error& error) {
            throw Error(place + ": " + error.what());
        }
        for (const auto& [name, entry] : entries) files_[name] = checked_file(name, entry);
    }

    // Reference inputs and outputs: "input", "fp32.latent", … Throws Error.
    std::map<std::string, Array> golden() const {
        const std::string descr = dtype == "uint8" ? "|u1" : dtype == "int16" ? "<i2" : "<f4";
        std::map<std::string, Wanted> wanted = {{"input", {descr, input_shape}}};
        for (const auto& [variant, of] : variants) {
            for (const auto& [what, tolerance] : of.tolerance) {
                wanted[variant + "." + what] = {
                    "<f4", what == "latent" ? latent_shape : what == "score" ? Shape{} : features_shape};
            }
        }
        try {
            return read_npz(files_.at("golden.npz"), wanted);
        } catch (const Error& error) {
            throw Error((path / "golden.npz").string() + ": " + error.what());
        }
    }

    bool has(const std::string& role, const std::string& variant) const {
        return role == "features" ? present(manifest, "front_end") : variants.at(variant).graphs.count(role) > 0;
    }

    // Whether score() gives something: there is a scorer, or a decoder and the plain score of residuals.
    bool has_score(const std::string& variant) const { return variants.at(variant).tolerance.count("score") > 0; }

    // Samples (n, *input_shape) to latents (n, *latent_shape). Throws Error, as the others do.
    Values encode(const std::string& variant, const Values& samples) { return run("encoder", variant, samples); }

    // Latents to samples, or to their features with a front end.
    Values decode(const std::string& variant, const Values& latents) { return run("decoder", variant, latents); }

    // Samples to the features that the network learnt from; the samples themselves without a front end.
    Values features(const Values& samples) {
        return has("features", "") ? run("features", default_variant, samples) : samples;
    }

    // Samples to scores (n,), by scorer.onnx where there is one.
    Values score(const std::string& variant, const Values& samples) {
        if (has("scorer", variant)) return run("scorer", variant, samples);
        return mean_square(features(samples), decode(variant, encode(variant, samples)));
    }

    // The score of kind "mse": the mean of ((x - reconstruction) / scale)² over the values of each sample.
    Values mean_square(const Values& x, const Values& reconstruction) const {
        Values scores(x.size() / scale.size());
        for (std::size_t i = 0; i < scores.size(); ++i) {
            double total = 0;
            for (std::size_t j = 0; j < scale.size(); ++j) {
                const std::size_t at = i * scale.size() + j;
                const double residual = (x[at] - reconstruction[at]) / scale[j];
                total += residual * residual;
            }
            scores[i] = static_cast<float>(total / static_cast<double>(scale.size()));
        }
        return scores;
    }

    // The score above which a variant alarms; nothing where it is not calibrated.
    std::optional<float> threshold(const std::string& variant) const {
        if (!present(manifest, "calibration")) return std::nullopt;
        const json& thresholds = manifest["calibration"].at("thresholds");
        return present(thresholds, variant) ? std::optional<float>(thresholds[variant].get<float>()) : std::nullopt;
    }

    // A graph of a variant, of values in C order. "features" is the same for all variants.
    Values run(const std::string& role, const std::string& variant, const Values& values) {
        Ort::Session& session = opened(role, variant);
        const Shape &from = row_in(role), to = row_out(role);
        const std::size_t rows = values.size() / product(from);
        Shape shape = {static_cast<std::int64_t>(rows)};
        shape.insert(shape.end(), from.begin(), from.end());
        Values found;
        try {
            found = type_in(role) == "float32" ? run_typed<float>(session, values, shape)
                    : dtype == "uint8"         ? run_typed<std::uint8_t>(session, values, shape)
                                               : run_typed<std::int16_t>(session, values, shape);
        } catch (const Ort::Exception& error) {
            throw Error((path / file_name(role, variant)).string() + ": onnxruntime cannot run it: " + error.what());
        }
        if (found.size() != rows * product(to)) {
            throw Error((path / file_name(role, variant)).string() + ": its output is not what the manifest says");
        }
        return found;
    }

private:
    std::map<std::string, std::string> files_;  // name to content
    std::map<std::string, Ort::Session> sessions_;

    static Ort::Env& environment() {
        static Ort::Env env = [] {
            // Some builds send telemetry unless they are told otherwise, before they start.
#ifdef _WIN32
            _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
            setenv("ORT_DISABLE_TELEMETRY", "1", 1);
#endif
            return Ort::Env(ORT_LOGGING_LEVEL_FATAL, "aeedge");  // errors are thrown
        }();
        return env;
    }

    void check_format() const {
        if (!manifest.is_object() || manifest.value("format", "") != "aeedge") {
            throw Error("it is no manifest of an aeedge bundle");
        }
        const auto version = manifest.at("format_version").get<std::int64_t>();
        if (version < 1 || version > 3) {
            throw Error("its format version is " + std::to_string(version) + ", this program reads 1 to 3");
        }
    }

    // The self-checksum is of the file's bytes, with zeros in its own place.
    static void check_seal(std::string data) {
        const std::string key = "\"manifest_sha256\": \"";
        const std::size_t at = data.find(key);
        if (at == std::string::npos || at + key.size() + 64 > data.size()) throw Error("it has no manifest_sha256");
        const std::string seal = data.substr(at + key.size(), 64);
        data.replace(at + key.size(), 64, 64, '0');
        if (sha256(data) != seal) {
            throw Error("it was changed after it was written, for its own checksum differs; copy the bundle again");
        }
    }

    void read_manifest() {
        const json& input = manifest.at("input");
        input_shape = features_shape = input.at("shape").get<Shape>();
        dtype = input.at("dtype").get<std::string>();
        if (dtype != "float32" && dtype != "uint8" && dtype != "int16") {
            throw Error("its input is of an unknown dtype");
        }
        const json& latent = manifest.at("latent");
        latent_shape = {latent.at("size").get<std::int64_t>()};
        if (present(latent, "shape")) latent_shape = latent["shape"].get<Shape>();
        if (present(manifest, "front_end")) features_shape = manifest["front_end"].at("shape").get<Shape>();
        for (const Shape* shape : {&input_shape, &latent_shape, &features_shape}) {
            double size = 1;
            for (const auto axis : *shape) size *= axis < 1 ? 0.0 : static_cast<double>(axis);
            if (shape->empty() || size < 1 || size >= 2147483648.0) throw Error("a shape in it is none");
        }
        const json& score = manifest.at("score");
        const auto kind = score.at("kind").get<std::string>();
        if (kind != "mse" && kind != "mahalanobis" && kind != "both") {
            throw Error("its score is of an unknown kind");
        }
        Shape shape;
        Values values;
        detail::flatten(score.at("scale"), 0, shape, values);
        scale = detail::broadcast(values, shape, features_shape);
        for (const float one : scale) {
            if (!(one > 0 && std::isfinite(one))) throw Error("its score has a scale that is not above 0");
        }
        for (const std::string name : {"fp32", "int8"}) {
            if (present(manifest.at("variants"), name)) read_variant(name, kind);
        }
        default_variant = manifest.at("default_variant").get<std::string>();
        if (!variants.count(default_variant)) throw Error("its default variant is none of its variants");
        const auto least = manifest.at("min_onnxruntime").get<std::string>();
        const std::string here = OrtGetApiBase()->GetVersionString();
        if (detail::release(here) < detail::release(least)) {
            throw Error("it needs onnxruntime " + least + ", this is " + here);
        }
    }

    void read_variant(const std::string& name, const std::string& kind) {
        const json& of = manifest["variants"][name];
        Variant& found = variants[name];
        for (const std::string role : {"encoder", "decoder", "scorer"}) {
            if (present(of, role)) found.graphs[role] = file(of[role]);
        }
        if (!found.graphs.count("encoder")) throw Error("its variant " + name + " has no encoder");
        if (kind == "mse" && !found.graphs.count("decoder")) found.graphs.erase("scorer");
        if (kind != "mse" && !found.graphs.count("scorer")) throw Error("its variant " + name + " has no scorer");
        std::vector<std::string> outputs = {"latent"};
        if (found.graphs.count("decoder")) outputs.push_back("reconstruction");
        if (found.graphs.count("decoder") || found.graphs.count("scorer")) outputs.push_back("score");
        if (present(manifest, "front_end")) outputs.push_back("features");
        for (const auto& what : outputs) {
            const json& tolerance = of.at("tolerance").at(what);
            found.tolerance[what] = {tolerance.at("rtol").get<double>(), tolerance.at("atol").get<double>()};
        }
    }

    // Optional keys may be null.
    static bool present(const json& object, const std::string& key) {
        return object.contains(key) && !object[key].is_null();
    }

    static File file(const json& entry) {
        return {entry.at("sha256").get<std::string>(), entry.at("bytes").get<std::uintmax_t>()};
    }

    // All files that the manifest lists. Their names follow from role and variant; it contains none.
    std::map<std::string, File> files() const {
        std::map<std::string, File> found = {{"golden.npz", file(manifest.at("golden"))}};
        for (const auto& [variant, of] : variants) {
            for (const auto& [role, entry] : of.graphs) found[file_name(role, variant)] = entry;
        }
        if (present(manifest, "front_end")) found["features.onnx"] = file(manifest["front_end"].at("features"));
        if (present(manifest, "calibration")) found["calibration.npz"] = file(manifest["calibration"]);
        return found;
    }

    static std::string file_name(const std::string& role, const std::string& variant) {
        return variant == "fp32" || role == "features" ? role + ".onnx" : role + "." + variant + ".onnx";
    }

    std::string checked_file(const std::string& name, const File& entry) {
        std::string data = detail::read_file(path / name, entry.bytes);
        if (sha256(data) != entry.sha256) {
            throw Error((path / name).string() + ": its sha256 is not the manifest's; copy the bundle again");
        }
        checked.push_back(name);
        return data;
    }

    Ort::Session& opened(const std::string& role, const std::string& variant) {
        const std::string name = file_name(role, variant);
        const auto found = sessions_.find(name);
        if (found != sessions_.end()) return found->second;
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1);
        // Sums of int8 graphs are exact also on x86 without VNNI; files are ONNX, and have no weights outside.
        options.AddConfigEntry("session.x64quantprecision", "1");
        options.AddConfigEntry("session.load_model_format", "ONNX");
        options.AddConfigEntry("session.model_external_initializers_file_folder_path", "/dev/null");
        const std::string& data = files_.at(name);
        try {
            Ort::Session session(environment(), data.data(), data.size(), options);
            check_graph(session, role);
            return sessions_.emplace(name, std::move(session)).first->second;
        } catch (const Ort::Exception& error) {
            throw Error((path / name).string() + ": onnxruntime refuses it: " + error.what());
        } catch (const Error& error) {
            throw Error((path / name).string() + ": " + error.what());
        }
    }

    // What a graph takes and gives of one sample.
    std::string type_in(const std::string& role) const { return role == "decoder" ? "float32" : dtype; }
    const Shape& row_in(const std::string& role) const { return role == "decoder" ? latent_shape : input_shape; }
    Shape row_out(const std::string& role) const {
        return role == "encoder" ? latent_shape : role == "scorer" ? Shape{} : features_shape;
    }

    void check_graph(Ort::Session& session, const std::string& role) const {
        Ort::AllocatorWithDefaultOptions allocator;
        const auto text = [&](const char* key) {
            const auto found = session.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
            return std::string(found ? found.get() : "");
        };
        if (text("aeedge.id") != manifest.at("id").get<std::string>() || text("aeedge.role") != role) {
            throw Error("it belongs to another bundle, or has another role");
        }
        const auto kind = type_in(role) == "float32" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
                          : dtype == "uint8"         ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                                     : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
        const bool fits = session.GetInputCount() == 1 && session.GetOutputCount() == 1 &&
                          is(session.GetInputTypeInfo(0), kind, row_in(role)) &&
                          is(session.GetOutputTypeInfo(0), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, row_out(role));
        if (!fits) throw Error("its input or output is not what the manifest says");
    }

    static bool is(const Ort::TypeInfo& info, ONNXTensorElementDataType kind, const Shape& row) {
        if (info.GetONNXType() != ONNX_TYPE_TENSOR) return false;
        const auto tensor = info.GetTensorTypeAndShapeInfo();
        const Shape shape = tensor.GetShape();
        return tensor.GetElementType() == kind && !shape.empty() && Shape(shape.begin() + 1, shape.end()) == row;
    }

    template <class T>
    static Values run_typed(Ort::Session& session, const Values& values, const Shape& shape) {
        std::vector<T> typed(values.begin(), values.end());
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto input = Ort::Value::CreateTensor<T>(memory, typed.data(), typed.size(), shape.data(), shape.size());
        Ort::AllocatorWithDefaultOptions allocator;
        const auto from = session.GetInputNameAllocated(0, allocator);
        const auto to = session.GetOutputNameAllocated(0, allocator);
        const char *from_name = from.get(), *to_name = to.get();
        const auto outputs = session.Run(Ort::RunOptions(), &from_name, &input, 1, &to_name, 1);
        const Ort::Value& output = outputs[0];
        const auto* data = output.template GetTensorData<float>();
        return Values(data, data + output.GetTensorTypeAndShapeInfo().GetElementCount());
    }
};

}  // namespace aeedge
