// One thread that does nothing but lock and unlock a mutex that nobody else wants: what a probed pair
// costs. Prints the mean time of a pair, in ns, and how many there were.
#include "workload.h"

using namespace workload;

int main(int argc, char** argv) {
  Options options(argc, argv, {});
  Run run(options);
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  uint64_t pairs = 0;
  Crew crew;
  Ledger ledger;
  crew.add([&] {
    while (!run.over()) {
      for (int i = 0; i < 1000; ++i) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
      }
      pairs += 1000;
    }
  });
  crew.run(run, ledger);
  Report("lock_loop")
      .run(run)
      .address("lock_address", &mutex)
      .number("pairs", pairs)
      .number("ns_per_pair", run.elapsed_s() * 1e9 / double(pairs))
      .print();
}
