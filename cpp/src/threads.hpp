// The threads that share the work of one call. Inside the library only.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace hpcscale {

// Call work(thread, task) for all tasks; the calling thread is thread 0. The first exception stops all
// threads and is thrown.
template <typename Work>
void for_each(std::size_t tasks, int threads, const Work& work) {
    std::atomic<std::size_t> next{0};
    std::exception_ptr error;
    std::mutex lock;
    const auto run = [&](int thread) {
        try {
            for (std::size_t task; (task = next.fetch_add(1)) < tasks;) work(thread, task);
        } catch (...) {
            const std::lock_guard hold(lock);
            if (!error) error = std::current_exception();
            next = tasks;
        }
    };
    std::vector<std::jthread> others;
    for (int t = 1; t < threads && static_cast<std::size_t>(t) < tasks; ++t) others.emplace_back(run, t);
    run(0);
    others.clear();  // joins
    if (error) std::rethrow_exception(error);
}

}  // namespace hpcscale
