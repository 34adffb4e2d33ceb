// Threads that do nothing but lock a mutex, count, and unlock it: with one thread what a probed pair
// costs, with more whether the mutex still excludes. Prints the mean time of a pair of a thread, in
// ns, and how many there were; aborts if any was lost.
#include "workload.h"

using namespace workload;

int main(int argc, char** argv) {
  Options options(argc, argv, {{"threads", "1", "that use the mutex"}});
  const size_t threads = options.count("threads");
  Run run(options);
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  uint64_t counted = 0;
  std::vector<uint64_t> pairs(threads);
  Crew crew;
  Ledger ledger;
  for (size_t i = 0; i < threads; ++i) {
    crew.add([&, i] {
      uint64_t own = 0;
      for (; !run.over(); own += 1000) {
        for (int k = 0; k < 1000; ++k) {
          pthread_mutex_lock(&mutex);
          ++counted;
          pthread_mutex_unlock(&mutex);
        }
      }
      pairs[i] = own;
    });
  }
  crew.run(run, ledger);
  uint64_t total = 0;
  for (uint64_t own : pairs) total += own;
  if (counted != total) abort();
  Report("lock_loop")
      .run(run)
      .address("lock_address", &mutex)
      .number("pairs", total)
      .number("ns_per_pair", run.elapsed_s() * 1e9 * double(threads) / double(total))
      .print();
}
