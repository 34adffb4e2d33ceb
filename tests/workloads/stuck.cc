// Two threads that wait for each other's mutex for ever, a third behind them, and two idle workers.
//
// A right tracer, attached after it got stuck, sees: three waits in flight on two mutexes, each with
// its owner and its whole stack (Ledger::transfer), and two idle waits on a condition variable.
// Ends when killed, at the latest after a minute.
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

namespace {

pthread_mutex_t accounts[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
pthread_barrier_t both_hold_one;
pthread_mutex_t work_mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t work = PTHREAD_COND_INITIALIZER;
pid_t owners[2];

}  // namespace

struct Ledger {
  __attribute__((noinline)) static void transfer(int from, int to) {
    pthread_mutex_lock(&accounts[from]);
    owners[from] = gettid();
    pthread_barrier_wait(&both_hold_one);
    pthread_mutex_lock(&accounts[to]);
    std::puts("never");
  }
  __attribute__((noinline)) static void balance() {
    pthread_mutex_lock(&accounts[0]);
    std::puts("never");
  }
};

__attribute__((noinline)) void idle_worker() {
  pthread_mutex_lock(&work_mutex);
  while (true) pthread_cond_wait(&work, &work_mutex);
}

int main() {
  pthread_barrier_init(&both_hold_one, nullptr, 3);
  std::thread(Ledger::transfer, 0, 1).detach();
  std::thread(Ledger::transfer, 1, 0).detach();
  pthread_barrier_wait(&both_hold_one);
  std::thread(Ledger::balance).detach();
  for (int i = 0; i < 2; i++) std::thread(idle_worker).detach();
  usleep(200000);  // all five are asleep by then
  std::printf("{\"stuck_in_locks\": 3, \"idle\": 2, \"owners\": [%d, %d]}\n", owners[0], owners[1]);
  std::fflush(stdout);
  sleep(60);
}
