#include "hpcscale/hamming.hpp"

#include <algorithm>
#include <bit>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "hamming_chunks.hpp"
#include "hamming_columns.hpp"
#include "hamming_kernels.hpp"

namespace hpcscale {
namespace {

constexpr std::size_t kQueries = 512;      // per task; they stay in cache, with the candidates of a call
constexpr std::size_t kCandidates = 2048;  // per call of the kernel
constexpr std::size_t kHeld = 1 << 14;     // pairs that a thread holds back

// --- the search

int distance(const std::uint64_t* a, const std::uint64_t* b, std::size_t words, const Chunk& chunk) {
    std::uint64_t different[4] = {};
    for (std::size_t w = 0; w < words; ++w) different[w] = a[w] ^ b[w];
    return std::popcount(key(different, chunk));
}

// Positions [begin, end) of a side; ids of its codes count from `first`.
struct Range {
    const Side& side;
    std::size_t begin, end, first = 0;
};

class Search {
  public:
    Search(const Codes& a, const Codes& b, bool self, int radius, const How& how, const Found& found,
           const Progress& progress)
        : a_(a),
          b_(b),
          self_(self),
          radius_(radius),
          threads_(how.threads),
          block_(how.block),
          found_(found),
          progress_(progress),
          held_(static_cast<std::size_t>(how.threads)),
          hits_(held_.size()) {
        Kernels chosen;
        for (const Kernels& each : kernels()) {
            if (how.variant.empty() || how.variant == each.name) chosen = each;
        }
        if (chosen.name.empty()) {
            throw std::invalid_argument("search: no variant '" + std::string(how.variant) +
                                        "' on this processor");
        }
        kernel_ = a.words == 1      ? chosen.bits64
                  : radius <= kNear ? chosen.bits256_near
                  : radius <= kMid  ? chosen.bits256_mid
                                    : chosen.bits256;
    }

    void scan() {
        Side queries, candidates;
        queries.count = a_.count();
        fill_columns(a_, 0, 0, threads_, queries);
        const std::size_t tasks = (queries.count + kQueries - 1) / kQueries;
        const std::size_t blocks = (b_.count() + block_ - 1) / block_;
        for (std::size_t block = 0; block < blocks; ++block) {
            const std::size_t first = block * block_;
            candidates.count = std::min(block_, b_.count() - first);
            fill_columns(b_, first, 0, threads_, candidates);
            for_each(tasks, threads_, [&](int thread, std::size_t task) {
                const std::size_t begin = task * kQueries, end = std::min(begin + kQueries, queries.count);
                // A set with itself: only candidates from the first query on.
                const std::size_t from =
                    self_ ? std::clamp(begin, first, first + candidates.count) - first : 0;
                compare(thread, {queries, begin, end}, {candidates, from, candidates.count, first}, {});
                report(thread,
                       static_cast<double>(block * tasks + task + 1) / static_cast<double>(blocks * tasks));
            });
        }
        flush();
    }

    void hash(const std::vector<Chunk>& chunks) {
        Side sorted_a, sorted_b;
        const Side& candidates = self_ ? sorted_a : sorted_b;
        for (std::size_t c = 0; c < chunks.size(); ++c) {
            sort_by_key(a_, chunks[c], threads_, sorted_a);
            if (!self_) sort_by_key(b_, chunks[c], threads_, sorted_b);
            const std::vector<std::uint32_t> near = masks(chunks[c]);
            const std::span earlier(chunks.data(), c);
            const std::size_t tasks = (a_.count() + kQueries - 1) / kQueries;
            for_each(tasks, threads_, [&](int thread, std::size_t task) {
                const std::size_t last = std::min((task + 1) * kQueries, a_.count());
                std::size_t begin = task * kQueries;
                std::size_t bucket = static_cast<std::size_t>(
                    std::upper_bound(sorted_a.starts.begin(), sorted_a.starts.end(), begin) -
                    sorted_a.starts.begin() - 1);
                for (; begin < last; ++bucket) {
                    const std::size_t end = std::min<std::size_t>(sorted_a.starts[bucket + 1], last);
                    if (begin == end) continue;
                    for (const std::uint32_t mask : near) {
                        const std::size_t other = bucket ^ mask;
                        if (self_ && other < bucket) continue;  // `other` finds these pairs
                        const std::size_t to = candidates.starts[other + 1];
                        const std::size_t from = self_ && mask == 0 ? begin : candidates.starts[other];
                        if (from < to)
                            compare(thread, {sorted_a, begin, end}, {candidates, from, to}, earlier);
                    }
                    begin = end;
                }
                report(thread,
                       (static_cast<double>(c) + static_cast<double>(task + 1) / static_cast<double>(tasks)) /
                           static_cast<double>(chunks.size()));
            });
        }
        flush();
    }

  private:
    // Pairs that one of the `earlier` chunks finds are left to that chunk.
    void compare(int thread, const Range& queries, Range candidates, std::span<const Chunk> earlier) {
        std::vector<Hit>& hits = hits_[static_cast<std::size_t>(thread)];
        const Columns columns = queries.side.from(queries.begin);
        for (; candidates.begin < candidates.end; candidates.begin += kCandidates) {
            const std::size_t n = std::min(kCandidates, candidates.end - candidates.begin);
            kernel_(columns, queries.end - queries.begin, candidates.side.from(candidates.begin), n, radius_,
                    hits);
            if (!hits.empty()) keep(thread, queries, candidates, earlier);
        }
    }

    void keep(int thread, const Range& queries, const Range& candidates, std::span<const Chunk> earlier) {
        std::vector<Hit>& hits = hits_[static_cast<std::size_t>(thread)];
        std::vector<Pair>& held = held_[static_cast<std::size_t>(thread)];
        // Within one bucket of one set, both (x, y) and (y, x) are computed: take one, by position.
        const bool same = self_ && &queries.side == &candidates.side;
        for (const Hit& hit : hits) {
            const std::size_t query = queries.begin + hit.query, candidate = candidates.begin + hit.candidate;
            if (same && query >= candidate) continue;
            std::size_t i = queries.side.id(query), j = candidates.first + candidates.side.id(candidate);
            if (self_ && !same && i >= j) continue;
            const std::uint64_t* const x = a_.values.data() + i * a_.words;
            const std::uint64_t* const y = b_.values.data() + j * b_.words;
            if (std::any_of(earlier.begin(), earlier.end(), [&](const Chunk& chunk) {
                    return distance(x, y, a_.words, chunk) <= chunk.radius;
                })) {
                continue;
            }
            if (self_ && i > j) std::swap(i, j);
            held.push_back({static_cast<std::int64_t>(i), static_cast<std::int64_t>(j), hit.distance});
        }
        hits.clear();
        if (held.size() >= kHeld) give(held);
    }

    void give(std::vector<Pair>& held) {
        if (held.empty()) return;
        const std::lock_guard hold(lock_);
        found_(held);
        held.clear();
    }

    void flush() {
        for (auto& held : held_) give(held);
    }

    void report(int thread, double share) {
        if (thread == 0 && progress_) progress_(share);
    }

    const Codes &a_, &b_;
    const bool self_;
    const int radius_, threads_;
    const std::size_t block_;
    const Found& found_;
    const Progress& progress_;
    Kernel kernel_ = nullptr;
    std::mutex lock_;
    std::vector<std::vector<Pair>> held_;  // per thread
    std::vector<std::vector<Hit>> hits_;   // per thread
};

// --- what callers see

void check(const Codes& a, const Codes& b, int radius, const How& how) {
    for (const Codes* codes : {&a, &b}) {
        if ((codes->words != 1 && codes->words != 4) || codes->words != a.words ||
            codes->values.size() % codes->words != 0 || codes->count() > UINT32_MAX) {
            throw std::invalid_argument(
                "search: codes must be fewer than 2^32 and of 1 or 4 words, the same on both "
                "sides; found " +
                std::to_string(codes->values.size()) + " words for codes of " + std::to_string(codes->words));
        }
    }
    if (radius < 0 || how.threads < 1 || how.threads > 4096 || how.block < 1) {
        throw std::invalid_argument(
            "search: radius must be at least 0, threads 1 to 4096 and block at least 1, found " +
            std::to_string(radius) + ", " + std::to_string(how.threads) + " and " +
            std::to_string(how.block));
    }
}

void run(const Codes& a, const Codes& b, bool self, int radius, const How& how, const Found& found,
         const Progress& progress) {
    check(a, b, radius, how);
    radius = std::min(radius, static_cast<int>(64 * a.words));
    Search search(a, b, self, radius, how, found, progress);
    if (a.count() == 0 || b.count() == 0) return;
    const int m = how.chunks < 0 ? plan(a, b, self, radius) : how.chunks;
    if (m == 0) {
        search.scan();
    } else {
        search.hash(fitting_chunks(a, b, radius, m));
    }
}

}  // namespace

void search(const Codes& a, const Codes& b, int radius, const How& how, const Found& found,
            const Progress& progress) {
    run(a, b, false, radius, how, found, progress);
}

void self_join(const Codes& a, int radius, const How& how, const Found& found, const Progress& progress) {
    run(a, a, true, radius, how, found, progress);
}

std::vector<std::string_view> hamming_variants() {
    std::vector<std::string_view> names;
    for (const Kernels& each : kernels()) names.push_back(each.name);
    return names;
}

}  // namespace hpcscale
