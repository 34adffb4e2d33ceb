#include "uprobe/pthread_functions.h"

namespace lockscope {
namespace {

constexpr uint8_t kObject = 1;
constexpr uint8_t kCondAndMutex = 3;

constexpr PthreadFunction kFunctions[] = {
    {"pthread_mutex_lock", LS_CALL_MUTEX_LOCK, kObject},
    {"mtx_lock", LS_CALL_MUTEX_LOCK, kObject},
    {"pthread_mutex_trylock", LS_CALL_MUTEX_TRYLOCK, kObject},
    {"mtx_trylock", LS_CALL_MUTEX_TRYLOCK, kObject},
    {"pthread_mutex_timedlock", LS_CALL_MUTEX_TIMEDLOCK, kObject},
    {"pthread_mutex_clocklock", LS_CALL_MUTEX_TIMEDLOCK, kObject},
    {"mtx_timedlock", LS_CALL_MUTEX_TIMEDLOCK, kObject},
    {"pthread_mutex_unlock", LS_CALL_MUTEX_UNLOCK, kObject},
    {"mtx_unlock", LS_CALL_MUTEX_UNLOCK, kObject},
    {"pthread_rwlock_rdlock", LS_CALL_RWLOCK_READ, kObject},
    {"pthread_rwlock_tryrdlock", LS_CALL_RWLOCK_TRY_READ, kObject},
    {"pthread_rwlock_timedrdlock", LS_CALL_RWLOCK_TIMED_READ, kObject},
    {"pthread_rwlock_clockrdlock", LS_CALL_RWLOCK_TIMED_READ, kObject},
    {"pthread_rwlock_wrlock", LS_CALL_RWLOCK_WRITE, kObject},
    {"pthread_rwlock_trywrlock", LS_CALL_RWLOCK_TRY_WRITE, kObject},
    {"pthread_rwlock_timedwrlock", LS_CALL_RWLOCK_TIMED_WRITE, kObject},
    {"pthread_rwlock_clockwrlock", LS_CALL_RWLOCK_TIMED_WRITE, kObject},
    {"pthread_rwlock_unlock", LS_CALL_RWLOCK_UNLOCK, kObject},
    {"pthread_cond_wait", LS_CALL_COND_WAIT, kCondAndMutex},
    {"pthread_cond_timedwait", LS_CALL_COND_WAIT, kCondAndMutex},
    {"pthread_cond_clockwait", LS_CALL_COND_WAIT, kCondAndMutex},
    {"cnd_wait", LS_CALL_COND_WAIT, kCondAndMutex},
    {"cnd_timedwait", LS_CALL_COND_WAIT, kCondAndMutex},
    {"pthread_cond_signal", LS_CALL_COND_SIGNAL, kObject},
    {"cnd_signal", LS_CALL_COND_SIGNAL, kObject},
    {"pthread_cond_broadcast", LS_CALL_COND_BROADCAST, kObject},
    {"cnd_broadcast", LS_CALL_COND_BROADCAST, kObject},
    {"sem_wait", LS_CALL_SEM_WAIT, kObject},
    {"sem_trywait", LS_CALL_SEM_TRYWAIT, kObject},
    {"sem_timedwait", LS_CALL_SEM_TIMEDWAIT, kObject},
    {"sem_clockwait", LS_CALL_SEM_TIMEDWAIT, kObject},
    {"sem_post", LS_CALL_SEM_POST, kObject},
    {"pthread_barrier_wait", LS_CALL_BARRIER_WAIT, kObject},
    {"pthread_once", LS_CALL_ONCE, kObject},
    {"call_once", LS_CALL_ONCE, kObject},
    {"pthread_join", LS_CALL_JOIN, kObject},
    {"pthread_timedjoin_np", LS_CALL_JOIN, kObject},
    {"pthread_clockjoin_np", LS_CALL_JOIN, kObject},
    {"thrd_join", LS_CALL_JOIN, kObject},
    {"pthread_spin_lock", LS_CALL_SPIN_LOCK, kObject},
    {"pthread_spin_trylock", LS_CALL_SPIN_TRYLOCK, kObject},
    {"pthread_spin_unlock", LS_CALL_SPIN_UNLOCK, kObject},
};

}  // namespace

std::span<const PthreadFunction> pthread_functions() { return kFunctions; }

const char* to_string(Libc libc) {
  switch (libc) {
    case Libc::Glibc: return "glibc";
    case Libc::Musl: return "musl";
    case Libc::Unknown: break;
  }
  return "unknown";
}

}  // namespace lockscope
