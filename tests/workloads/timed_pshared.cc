// Processes that share one cache, and its lock, in a mapped file or shared memory.
//
// A right tracer sees: waits on ONE shared lock in every child process, joined across them although
// each maps it at another address (`addresses`): for a file or shm the identity is `inode` and
// `lock_offset`. lock_wait_ns is charged across processes: the waiting of one to the unlock in
// another. With `--primitive sem` it is what PostgreSQL does: process-shared semaphores.
//
// The parent (`pid`) only waits in waitpid; the ledgers live in the shared mapping.
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "workload.h"

using namespace workload;

constexpr size_t kLockOffset = 4096 + 192;  // not the mapping's start: the offset matters
constexpr size_t kMaxProcesses = 64;

struct Settings {
  uint64_t hold_ns, think_ns;
  bool hold_on_cpu;
};

struct Shared {
  struct {
    Ledger ledger;
    void* lock_address;
    uint64_t pid;
  } process[kMaxProcesses];
  uint64_t stored;
};
constexpr size_t kBytes = 8192 + sizeof(Shared);

class SharedCache {
 public:
  SharedCache(char* mapping, const Settings& settings, bool semaphore)
      : mapping_(mapping), settings_(settings), semaphore_(semaphore) {}

  void initialise(bool robust) {
    if (semaphore_) {
      sem_init(sem(), 1, 1);
      return;
    }
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (robust) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex(), &attributes);
    pthread_mutexattr_destroy(&attributes);
  }

  OWN_FRAME void store(Ledger& ledger) {
    Acquired acquired = lock_cache(ledger);
    evict_and_copy();
    ++shared().stored;
    end_hold(ledger, acquired);
    unlock_cache();
    keep_frame();
  }

  void* address() { return mapping_ + kLockOffset; }
  Shared& shared() { return *reinterpret_cast<Shared*>(mapping_ + 8192); }

 private:
  pthread_mutex_t* mutex() { return static_cast<pthread_mutex_t*>(address()); }
  sem_t* sem() { return static_cast<sem_t*>(address()); }

  OWN_FRAME Acquired lock_cache(Ledger& ledger) {
    return acquire(
        ledger,
        [this] { return semaphore_ ? !sem_trywait(sem()) : !pthread_mutex_trylock(mutex()); },
        [this] {
          if (!semaphore_) {
            pthread_mutex_lock(mutex());
            return;
          }
          while (sem_wait(sem()) != 0) {
          }
        });
  }
  OWN_FRAME void unlock_cache() {
    semaphore_ ? sem_post(sem()) : pthread_mutex_unlock(mutex());
    keep_frame();
  }
  OWN_FRAME void evict_and_copy() { spend_ns(settings_.hold_ns, settings_.hold_on_cpu); }

  char* mapping_;
  const Settings& settings_;
  bool semaphore_;
};

OWN_FRAME void serve_tenant(SharedCache& cache, const Settings& settings, const Run& run,
                            Ledger& ledger) {
  while (!run.over()) {
    sleep_ns(settings.think_ns);
    cache.store(ledger);
  }
}

static char* map(int fd, char* wanted = nullptr) {
  int flags = MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0);
  void* mapping = mmap(wanted, kBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (mapping == MAP_FAILED) {
    perror("mmap");
    exit(1);
  }
  return static_cast<char*>(mapping);
}

int main(int argc, char** argv) {
  Options options(argc, argv,
                  {{"processes", "4", "processes that share the lock"},
                   {"hold-us", "500", "time in the critical section"},
                   {"think-us", "300", "time between two requests, asleep"},
                   {"holder", "cpu", "what the holder does: cpu or sleep"},
                   {"backing", "file", "file (in $TMPDIR), shm or anonymous"},
                   {"primitive", "mutex", "mutex, robust or sem"}});
  Settings settings{options.us_in_ns("hold-us"), options.us_in_ns("think-us"),
                    options.choice("holder", {"sleep", "cpu"}) == 1};
  size_t primitive = options.choice("primitive", {"mutex", "robust", "sem"});
  size_t backing = options.choice("backing", {"file", "shm", "anonymous"});
  size_t processes = std::min<size_t>(options.count("processes"), kMaxProcesses);

  int fd = -1;
  struct stat status = {};
  if (backing != 2) {
    std::string path = backing == 1 ? "/dev/shm"
                       : getenv("TMPDIR") ? getenv("TMPDIR")
                                          : "/tmp";
    path += "/lockscope-pshared-XXXXXX";
    fd = mkstemp(path.data());
    if (fd < 0 || ftruncate(fd, kBytes) != 0 || fstat(fd, &status) != 0) {
      perror(path.c_str());
      return 1;
    }
    unlink(path.c_str());  // deleted and still mapped, like a server's shared memory
  }
  char* mapping = map(fd);
  SharedCache cache(mapping, settings, primitive == 2);
  cache.initialise(primitive == 1);

  Run run(options);
  run.start();  // before the forks: the ready file names the parent
  for (size_t i = 0; i < processes; ++i) {
    pid_t child = fork();
    if (child < 0) {
      perror("fork");
      return 1;
    }
    if (child != 0) continue;
    // Its own address for the same lock, where the memory can be mapped again.
    char* own = fd < 0 ? mapping : map(fd, reinterpret_cast<char*>((i + 1) << 40));
    if (own != mapping) munmap(mapping, kBytes);
    SharedCache mine(own, settings, primitive == 2);
    auto& slot = mine.shared().process[i];
    slot.pid = uint64_t(getpid());
    slot.lock_address = mine.address();
    Ledger ledger;
    serve_tenant(mine, settings, run, ledger);
    slot.ledger = ledger;
    _exit(0);
  }
  int failures = 0, state;
  while (wait(&state) > 0) failures += state != 0;
  run.stop();
  if (failures) return 1;

  Shared& shared = cache.shared();
  Ledger total;
  std::string pids, addresses;
  for (size_t i = 0; i < processes; ++i) {
    total.add(shared.process[i].ledger);
    char text[64];
    snprintf(text, sizeof text, "%s%p", i ? " " : "", shared.process[i].lock_address);
    addresses += text;
    pids += (i ? " " : "") + std::to_string(shared.process[i].pid);
  }
  if (shared.stored != total.acquisitions) abort();  // the lock did not exclude
  Report("timed_pshared")
      .run(run)
      .text("primitive", options.text("primitive"))
      .text("backing", options.text("backing"))
      .number("processes", uint64_t(processes))
      .text("pids", pids)
      .text("addresses", addresses)
      .number("inode", uint64_t(status.st_ino))
      .number("lock_offset", uint64_t(kLockOffset))
      .stack("waiter_stack", {"SharedCache::lock_cache", "SharedCache::store", "serve_tenant"})
      .stack("holder_stack", {"SharedCache::unlock_cache", "SharedCache::store", "serve_tenant"})
      .ledger(total)
      .print();
}
