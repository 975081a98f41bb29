// Arrays of a numpy archive (.npz): a ZIP file of .npy files, stored or deflated.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <numeric>
#include <regex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace aeedge {

// The bundle is damaged, does not fit this machine, or is not reproduced on it; or the rows do not fit the bundle.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using Shape = std::vector<std::int64_t>;

inline std::size_t product(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
}

// What an array is expected to be: "<f4", "|u1" or "<i2", and the shape of one of its rows.
struct Wanted {
    std::string descr;
    Shape row;

    std::size_t item() const { return descr.back() - '0'; }  // bytes
};

// Values in C order, little-endian.
struct Array {
    std::string descr;
    Shape shape;
    std::string data;

    template <class T>
    std::vector<T> values() const {
        std::vector<T> found(data.size() / sizeof(T));
        std::memcpy(found.data(), data.data(), found.size() * sizeof(T));
        return found;
    }
};

namespace detail {

constexpr std::int64_t kMostRows = 4096;
constexpr std::size_t kMostHeader = 1024;  // bytes

inline std::uint64_t number(std::string_view bytes, std::size_t at, int size) {
    if (at + size > bytes.size()) throw Error("it ends too early");
    std::uint64_t found = 0;
    for (int i = size - 1; i >= 0; --i) found = found << 8 | static_cast<unsigned char>(bytes[at + i]);
    return found;
}

struct Entry {
    unsigned method;
    std::uint64_t packed, size, at;
};

// Entries of the central directory. The sizes in front of the files themselves are no use: numpy leaves them blank.
inline std::map<std::string, Entry> zip_entries(std::string_view zip) {
    std::size_t end = zip.rfind("PK\5\6");
    if (end == std::string_view::npos) throw Error("it is no ZIP archive");
    std::size_t at = number(zip, end + 16, 4);
    std::map<std::string, Entry> entries;
    for (auto left = number(zip, end + 10, 2); left > 0; --left) {
        if (number(zip, at, 4) != 0x02014b50) throw Error("its directory is damaged");
        const Entry entry = {static_cast<unsigned>(number(zip, at + 10, 2)), number(zip, at + 20, 4),
                             number(zip, at + 24, 4), number(zip, at + 42, 4)};
        const std::size_t name = number(zip, at + 28, 2), extra = number(zip, at + 30, 2);
        entries[std::string(zip.substr(at + 46, name))] = entry;
        at += 46 + name + extra + number(zip, at + 32, 2);
    }
    return entries;
}

inline std::string unpacked(std::string_view zip, const Entry& entry, std::uint64_t most) {
    const std::size_t start =
        entry.at + 30 + number(zip, entry.at + 26, 2) + number(zip, entry.at + 28, 2);
    if (start + entry.packed > zip.size() || entry.size > most) throw Error("it is of another size than expected");
    const std::string_view packed = zip.substr(start, entry.packed);
    if (entry.method == 0) return std::string(packed);
    if (entry.method != 8) throw Error("it is compressed in an unknown way");
    std::string data(entry.size, '\0');
    z_stream stream{};
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = reinterpret_cast<Bytef*>(data.data());
    stream.avail_out = static_cast<uInt>(data.size());
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw Error("zlib does not start");
    const int result = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    if (result != Z_STREAM_END || stream.avail_out != 0) throw Error("it cannot be unpacked");
    return data;
}

// Values of an array in Fortran order, the first index the fastest, in C order.
inline std::string c_order(const std::string& data, const Shape& shape, std::size_t item) {
    std::string found(data.size(), '\0');
    Shape index(shape.size(), 0);
    for (std::size_t from = 0; from < data.size(); from += item) {
        std::int64_t to = 0;
        for (std::size_t axis = 0; axis < shape.size(); ++axis) to = to * shape[axis] + index[axis];
        found.replace(to * item, item, data, from, item);
        for (std::size_t axis = 0; axis < shape.size() && ++index[axis] == shape[axis]; ++axis) index[axis] = 0;
    }
    return found;
}

inline Array npy_array(const std::string& npy, const Wanted& wanted) {
    static const std::regex header(
        R"(\{'descr': '([^']{2,4})', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,200})\), \} *\n)");
    const std::size_t size = number(npy, 8, 2);
    if (size > kMostHeader || npy.size() < 10 + size) throw Error("its header is too long");
    std::smatch found;
    const std::string text = npy.substr(10, size);
    if (npy.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) != 0 || !std::regex_match(text, found, header)) {
        throw Error("it is no array of numbers in numpy's format 1.0");
    }
    Shape shape;
    const std::string sizes = found[3];
    static const std::regex digits("[0-9]{1,18}");
    for (std::sregex_iterator it(sizes.begin(), sizes.end(), digits), last; it != last; ++it) {
        shape.push_back(std::stoll(it->str()));
    }
    if (found[1] != wanted.descr || shape.empty() || Shape(shape.begin() + 1, shape.end()) != wanted.row ||
        shape[0] < 1 || shape[0] > kMostRows) {
        throw Error("it is of another dtype or shape than the manifest says");
    }
    const std::size_t item = wanted.item();
    std::string data = npy.substr(10 + size);
    if (data.size() != product(shape) * item) throw Error("it is of another size than expected");
    if (found[2] == "True") data = c_order(data, shape, item);
    return {wanted.descr, shape, std::move(data)};
}

}  // namespace detail

// The wanted arrays by name, all of as many rows; others are passed over.
inline std::map<std::string, Array> read_npz(std::string_view zip, const std::map<std::string, Wanted>& wanted) {
    const auto entries = detail::zip_entries(zip);
    std::map<std::string, Array> arrays;
    for (const auto& [name, of] : wanted) {
        const auto entry = entries.find(name + ".npy");
        if (entry == entries.end()) throw Error("it lacks '" + name + "'");
        const std::uint64_t most = 10 + detail::kMostHeader + detail::kMostRows * product(of.row) * of.item();
        try {
            arrays[name] = detail::npy_array(detail::unpacked(zip, entry->second, most), of);
        } catch (const Error& error) {
            throw Error("'" + name + "' in it cannot be read: " + error.what());
        }
        if (arrays[name].shape[0] != arrays.begin()->second.shape[0]) {
            throw Error("it has arrays of different numbers of rows");
        }
    }
    return arrays;
}

}  // namespace aeedge
