#include "jpeg_reader.hpp"

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

// jpeglib.h needs <cstdio> before it.
#include <jerror.h>
#include <jpeglib.h>

namespace hpcscale {
namespace {

// As ingest and data/jpeg.py have it: what is stored has no more.
constexpr std::size_t kMaxPixels = std::size_t{50} << 20;
constexpr std::size_t kMaxWork = std::size_t{1} << 30;  // scans * pixels: each scan may cover all pixels
constexpr std::size_t kMaxScans = 64;

// Pixels around a part that are decoded with it. The triangle reaches one pixel of a subsampled colour far,
// which is at most 4 pixels wide; and libjpeg takes another filter where a colour has at most 2 columns.
constexpr std::size_t kMargin = 8;

// Where a row begins, past a multiple of kLine bytes. libjpeg-turbo writes rows that begin at a multiple of
// its vectors (16 or 32 bytes) around the caches, and who reads them next waits for memory.
constexpr std::size_t kLine = 64, kOff = 8;

// Where libjpeg's errors go: back into `guarded`, by longjmp, since its frames are C and know no exceptions.
struct Errors {
    jpeg_error_mgr table;  // first, so that its address is that of Errors
    std::jmp_buf back;
    char text[JMSG_LENGTH_MAX], warning[JMSG_LENGTH_MAX];
};

Errors& errors_of(j_common_ptr info) { return *reinterpret_cast<Errors*>(info->err); }

[[noreturn]] void fail(j_common_ptr info) {
    Errors& errors = errors_of(info);
    errors.table.format_message(info, errors.text);
    std::longjmp(errors.back, 1);
}

[[noreturn]] void fail_with(j_common_ptr info, const char* text) {
    Errors& errors = errors_of(info);
    std::snprintf(errors.text, sizeof errors.text, "%s", text);
    errors.table.msg_code = JERR_INPUT_EOF;
    std::longjmp(errors.back, 1);
}

void note(j_common_ptr info, int level) {
    Errors& errors = errors_of(info);
    if (level < 0 && errors.table.num_warnings++ == 0) errors.table.format_message(info, errors.warning);
}

void do_nothing(j_decompress_ptr) {}
void say_nothing(j_common_ptr) {}

boolean ends(j_decompress_ptr info) {
    fail_with(reinterpret_cast<j_common_ptr>(info), "truncated: its bytes end before the last row needed");
}

void skip(j_decompress_ptr info, long count) {
    if (count <= 0) return;
    const std::size_t some = std::min(static_cast<std::size_t>(count), info->src->bytes_in_buffer);
    info->src->next_input_byte += some;
    info->src->bytes_in_buffer -= some;
}

void check_scans(j_common_ptr info) {
    const auto& picture = *reinterpret_cast<j_decompress_ptr>(info);
    const auto scans = static_cast<std::size_t>(picture.input_scan_number);
    if (scans > kMaxScans || scans * picture.image_width * picture.image_height > kMaxWork)
        fail_with(info, "more scans than are allowed");
}

}  // namespace

struct JpegReader::State {
    jpeg_decompress_struct info{};
    Errors errors{};
    jpeg_source_mgr source{};
    jpeg_progress_mgr progress{};
    std::vector<std::uint8_t> room;
    std::uint8_t* row = nullptr;  // in `room`
    std::size_t skipped = 0;      // bytes of `row` before the part

    // What `call` gives; it may hold nothing that needs a destructor, because errors jump over it.
    template <typename Call>
    [[gnu::noinline]] void guarded(const Call& call) {
        if (setjmp(errors.back) == 0) {
            call();
            return;
        }
        if (errors.table.msg_code == JERR_OUT_OF_MEMORY) throw std::bad_alloc();
        throw BadJpeg(errors.text);
    }
};

JpegReader::JpegReader() : state_(std::make_unique<State>()) {
    State& s = *state_;
    s.info.err = jpeg_std_error(&s.errors.table);
    s.errors.table.error_exit = fail;
    s.errors.table.emit_message = note;
    s.errors.table.output_message = say_nothing;
    s.source.init_source = do_nothing;
    s.source.fill_input_buffer = ends;
    s.source.skip_input_data = skip;
    s.source.resync_to_restart = jpeg_resync_to_restart;
    s.source.term_source = do_nothing;
    s.progress.progress_monitor = check_scans;
}

JpegReader::~JpegReader() { jpeg_destroy_decompress(&state_->info); }

std::size_t JpegReader::height() const { return state_->info.image_height; }
std::size_t JpegReader::width() const { return state_->info.image_width; }
const char* JpegReader::warning() const { return state_->errors.warning; }

void JpegReader::open(std::span<const std::uint8_t> jpeg) {
    State& s = *state_;
    // Anew for each picture: libjpeg keeps tables, which a file without its own would then take.
    jpeg_destroy_decompress(&s.info);
    s.guarded([&] { jpeg_create_decompress(&s.info); });
    s.info.src = &s.source;
    s.info.progress = &s.progress;
    s.errors.warning[0] = '\0';
    s.errors.table.num_warnings = 0;
    s.source.next_input_byte = jpeg.data();
    s.source.bytes_in_buffer = jpeg.size();
    s.guarded([&] { jpeg_read_header(&s.info, TRUE); });
    if (s.info.num_components == 4)
        throw BadJpeg("has four colour components (CMYK); only grey and three are decoded");
    if (height() * width() > kMaxPixels) {
        throw BadJpeg("its header claims " + std::to_string(height()) + " x " + std::to_string(width()) +
                      " pixels; allowed are " + std::to_string(kMaxPixels));
    }
}

void JpegReader::begin(const Part& part) {
    State& s = *state_;
    s.info.out_color_space = JCS_RGB;
    auto left = static_cast<JDIMENSION>(part.left < kMargin ? 0 : part.left - kMargin);
    auto columns = static_cast<JDIMENSION>(std::min(part.left + part.width + kMargin, width()) - left);
    s.guarded([&] {
        jpeg_start_decompress(&s.info);
        // Moves `left` to the border of a block, and widens `columns` by as much.
        if (columns < s.info.output_width) jpeg_crop_scanline(&s.info, &left, &columns);
    });
    s.skipped = 3 * (part.left - left);
    s.room.resize(kLine + kOff + std::size_t{3} * s.info.output_width);
    const auto past = reinterpret_cast<std::uintptr_t>(s.room.data()) % kLine;
    s.row = s.room.data() + (kLine - past) + kOff;
    if (part.top > 0) {
        s.guarded([&] { jpeg_skip_scanlines(&s.info, static_cast<JDIMENSION>(part.top)); });
    }
}

const std::uint8_t* JpegReader::next() {
    State& s = *state_;
    JSAMPROW row = s.row;
    s.guarded([&] { jpeg_read_scanlines(&s.info, &row, 1); });
    return s.row + s.skipped;
}

void JpegReader::finish() {
    State& s = *state_;
    s.guarded([&] { jpeg_finish_decompress(&s.info); });
}

}  // namespace hpcscale
