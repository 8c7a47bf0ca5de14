#include "jpeg_file.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace hpcscale {
namespace {

enum Marker : std::uint8_t {
    kSof0 = 0xC0,
    kSof1 = 0xC1,
    kDht = 0xC4,
    kSoi = 0xD8,
    kSos = 0xDA,
    kDqt = 0xDB,
    kDri = 0xDD,
    kApp0 = 0xE0,
    kApp14 = 0xEE,
    kApp15 = 0xEF,
    kCom = 0xFE
};

// Big-endian numbers, one after another. Beyond the end all are 0, and `good` is false.
struct Numbers {
    Bytes left;
    bool good = true;
    std::size_t byte() {
        if (left.empty()) {
            good = false;
            return 0;
        }
        const std::size_t value = left.front();
        left = left.subspan(1);
        return value;
    }
    std::size_t pair() {
        const std::size_t high = byte();
        return high << 8 | byte();
    }
    Bytes some(std::size_t count) {
        if (count > left.size()) {
            good = false;
            return {};
        }
        const Bytes taken = left.first(count);
        left = left.subspan(count);
        return taken;
    }
};

// One component as the frame states it.
struct Stated {
    std::size_t id, across, down, steps;
};

// What has been read so far.
struct Header {
    JpegFile file{};
    std::vector<Stated> stated;
    std::array<std::optional<std::array<std::uint16_t, 64>>, 4> steps;
    std::array<std::optional<HuffmanCode>, 4> first, rest;
    bool jfif = false;
    std::optional<std::size_t> adobe;  // what its marker says of colours

    bool quantisation(Numbers numbers) {
        while (!numbers.left.empty()) {
            const std::size_t head = numbers.byte();
            if (head >> 4 > 1 || (head & 15) > 3) return false;
            auto& table = steps[head & 15].emplace();
            for (auto& step : table)
                step = static_cast<std::uint16_t>(head >> 4 ? numbers.pair() : numbers.byte());
        }
        return numbers.good;
    }

    bool huffman(Numbers numbers) {
        while (!numbers.left.empty()) {
            const std::size_t head = numbers.byte();
            if (head >> 4 > 1 || (head & 15) > 3) return false;
            HuffmanCode code;
            std::size_t symbols = 0, unused = 1;  // of the codes of a length, those that are free
            for (std::size_t length = 1; length <= 16; ++length) {
                const std::size_t count = numbers.byte();
                unused *= 2;
                if (count > unused) return false;
                unused -= count;
                symbols += count;
                code.counts[length] = static_cast<std::uint8_t>(count);
            }
            if (symbols > code.symbols.size()) return false;
            std::ranges::copy(numbers.some(symbols), code.symbols.begin());
            (head >> 4 ? rest : first)[head & 15] = code;
        }
        return numbers.good;
    }

    bool frame(Numbers numbers) {
        const std::size_t bits = numbers.byte();
        file.height = numbers.pair();
        file.width = numbers.pair();
        const std::size_t count = numbers.byte();
        if (!stated.empty() || bits != 8 || file.height < 1 || file.width < 1 || (count != 1 && count != 3))
            return false;
        for (std::size_t c = 0; c < count; ++c) {
            const std::size_t id = numbers.byte(), sampling = numbers.byte(), table = numbers.byte();
            stated.push_back({id, sampling >> 4, sampling & 15, table});
        }
        return numbers.good && numbers.left.empty();
    }

    // As libjpeg guesses: what JFIF and Adobe say, else names of components.
    bool is_ycbcr() const {
        if (jfif) return true;
        if (adobe) return *adobe == 1;
        return stated[0].id != 'R' || stated[1].id != 'G' || stated[2].id != 'B';
    }

    bool scan(Numbers numbers) {
        if (stated.empty() || numbers.byte() != stated.size()) return false;
        for (const Stated& component : stated) {
            if (numbers.byte() != component.id) return false;
            const std::size_t tables = numbers.byte();
            if (tables >> 4 > 3 || (tables & 15) > 3) return false;
            const auto &dc = first[tables >> 4], &ac = rest[tables & 15];
            if (!dc || !ac) return false;
            // A scan of one component has its blocks one by one, whatever its sampling.
            const bool alone = stated.size() == 1;
            file.components.push_back({alone ? 1 : component.down, alone ? 1 : component.across, *dc, *ac});
        }
        if (numbers.byte() != 0 || numbers.byte() != 63 || numbers.byte() != 0 || !numbers.good) return false;
        const Stated& luma = stated[0];
        if (luma.steps > 3 || !steps[luma.steps]) return false;
        file.steps = *steps[luma.steps];
        return sampling_is_usual() && (stated.size() == 1 || is_ycbcr());
    }

    bool sampling_is_usual() const {
        return std::ranges::all_of(stated, [&](const Stated& component) {
            return component.down >= 1 && component.across >= 1 && component.down <= stated[0].down &&
                   component.across <= stated[0].across && stated[0].down <= 2 && stated[0].across <= 4;
        });
    }
};

bool starts_with(Bytes bytes, std::string_view text) {
    return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

}  // namespace

std::optional<JpegFile> read_jpeg_file(Bytes jpeg) {
    Numbers numbers{jpeg};
    if (numbers.byte() != 0xFF || numbers.byte() != kSoi) return std::nullopt;
    Header header;
    for (;;) {
        const std::size_t mark = numbers.byte(), marker = numbers.byte(), length = numbers.pair();
        if (!numbers.good || mark != 0xFF || length < 2) return std::nullopt;
        const Numbers content{numbers.some(length - 2), numbers.good};
        if (!numbers.good) return std::nullopt;
        bool known = true;
        switch (marker) {
            case kSof0:
            case kSof1:
                known = header.frame(content);
                break;
            case kDqt:
                known = header.quantisation(content);
                break;
            case kDht:
                known = header.huffman(content);
                break;
            case kDri:
                known = std::ranges::all_of(content.left, [](auto byte) { return byte == 0; });
                break;
            case kSos:
                if (!header.scan(content)) return std::nullopt;
                header.file.scan = numbers.left;
                return std::move(header.file);
            case kApp14:
                if (starts_with(content.left, "Adobe") && content.left.size() >= 12)
                    header.adobe = content.left[11];
                break;
            default:
                if (marker == kApp0 && content.left.size() >= 14 && starts_with(content.left, {"JFIF\0", 5}))
                    header.jfif = true;
                known = (marker >= kApp0 && marker <= kApp15) || marker == kCom;
        }
        if (!known) return std::nullopt;
    }
}

}  // namespace hpcscale
