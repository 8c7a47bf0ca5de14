// libjpeg-turbo behind a class: errors are exceptions, and only a part of the picture is decoded. The only
// file that knows libjpeg. Inside the library only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>

namespace hpcscale {

struct BadJpeg : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A part of a picture, in pixels.
struct Part {
    std::size_t top, left, height, width;
};

// Decodes one picture after another, at libjpeg's default settings: the slow integer DCT, and colours
// upsampled by a triangle ("fancy"). A part has the bits that decoding everything and cropping gives.
//
// Every call throws BadJpeg where libjpeg gives up or the bytes end, and std::bad_alloc. Of damage that
// libjpeg mends it only warns.
class JpegReader {
  public:
    JpegReader();
    ~JpegReader();
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;

    // Read the header. The bytes must stay until the next call of `open`.
    void open(std::span<const std::uint8_t> jpeg);
    std::size_t height() const;
    std::size_t width() const;

    // Decode up to the first row of a part, which must lie within the picture, as RGB.
    void begin(const Part& part);
    // The next row of the part, of 3 * part.width bytes; valid until the next call. No more than part.height.
    const std::uint8_t* next();

    // Read what comes after the last row, up to the end marker.
    void finish();
    // The first warning since `open`, or "".
    const char* warning() const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace hpcscale
