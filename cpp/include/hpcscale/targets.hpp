// From the tags of pictures to the rows that a loss compares with: tag -> class -> ancestors -> row.
//
// In: batches of records, each a list of tag ids, in CSR form. Out: one row per record over the classes
// [lo, hi), in a buffer that the caller owns and uses again for every batch. Only what the last batch set is
// cleared: to clear 1024 x 18,291 floats costs twenty times as much as to set the ten of each row that are
// not zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hpcscale/hierarchy.hpp"

namespace hpcscale {

// What every tag stands for: the class it selects and all ancestors of that class.
class Closure {
  public:
    // tag_classes[t] is the class that tag t selects, or -1 if it selects none. List c of `ancestors` holds
    // the ancestors of class c, in any order; repetitions do no harm. Throws std::out_of_range that names the
    // tag or class.
    Closure(std::span<const std::int32_t> tag_classes, Lists ancestors);

    std::size_t tags() const { return tag_classes_.size(); }
    std::size_t classes() const { return closed_.offsets.size() - 1; }
    // Classes of tag `t` (0 <= t < tags()): sorted, each once; empty if it selects no class.
    std::span<const std::int32_t> operator[](std::size_t t) const {
        const std::int32_t c = tag_classes_[t];
        return c < 0 ? std::span<const std::int32_t>{} : closed_.view()[static_cast<std::size_t>(c)];
    }

  private:
    std::vector<std::int32_t> tag_classes_;
    OwnedLists closed_;  // per class: itself and its ancestors
};

// For every record the classes that hold: those of all its tags, sorted, each once. Throws as check() does;
// the message names record and tag id.
OwnedLists labels(const Closure& closure, Lists tags);

enum class Kind {
    ones,    // 1 where the class holds (per-label logistic loss)
    shares,  // 1/k where the class holds, if k classes hold (softmax loss)
};

// A caller's buffer of rows, and a record of what is set in it. Not for two threads at once.
//
// k counts all classes that hold, also ancestors and classes outside [lo, hi): where several ranks build
// parts of a row, these sum to 1, as softmax probabilities do. Mahajan et al. 2018 (section 2.3) count the
// tags of the picture. In a flat vocabulary like theirs, where no class has ancestors, that is the same.
class TargetRows {
  public:
    // `buffer` holds `capacity` rows of hi - lo floats without gaps, all zero; it and `closure` must outlive
    // this. Throws std::out_of_range unless 0 <= lo <= hi <= closure.classes(), and std::invalid_argument if
    // the buffer has more than 2^32 elements.
    TargetRows(const Closure& closure, std::size_t lo, std::size_t hi, Kind kind, float* buffer,
               std::size_t capacity);

    // Clear what the last call set, then write row i for record i. A record without a class gets a row of
    // zeros, and so do rows after the last record. Throws, before anything is changed, as check() does, or
    // std::invalid_argument if there are more records than rows. Cost: one store per class of this batch and
    // of the last.
    void fill(Lists tags);

  private:
    // Of one tag: its classes in [lo, hi), and the number of all its classes.
    struct Part {
        std::span<const std::int32_t> inside;
        std::size_t all;
    };

    template <typename Value>
    void write(Lists tags, const Value& value_of);
    std::size_t distinct(std::span<const std::int32_t> tags);

    const Closure& closure_;
    std::size_t lo_, width_, capacity_;
    Kind kind_;
    float* buffer_;
    std::vector<Part> parts_;         // per tag
    std::vector<std::uint32_t> set_;  // elements of the buffer that are not zero; 8 bytes each cost 12 % more
    std::vector<std::uint8_t> marked_;  // per class: seen in this record; all zero between records
};

}  // namespace hpcscale
