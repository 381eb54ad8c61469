// For wheels, beside csrc/old_glibc.h: CUDA's runtime, which is linked in, names no version of what it calls, and a
// linker on glibc 2.34 or later gives it that of 2.34, where threads and dlopen moved into libc. Here each of these
// names is a hidden function that jumps to the one of the first glibc for x86-64, whose signature is the same; by a
// jump, so that dlopen and dlsym see the same caller. auditwheel tells whether a name is missing.
#if defined(__linux__) && defined(__x86_64__)

#define IMAE_OF_OLD_GLIBC(name, version)                                                                \
  __asm__(".symver imae_old_" #name ", " #name "@GLIBC_" version);                                      \
  __asm__(".pushsection .text; .globl " #name "; .hidden " #name "; .type " #name ", @function; " #name \
          ": endbr64; jmp imae_old_" #name "@PLT; .popsection");
#define IMAE_OLD(name) IMAE_OF_OLD_GLIBC(name, "2.2.5")

IMAE_OLD(dlclose)
IMAE_OLD(dlerror)
IMAE_OLD(dlopen)
IMAE_OLD(dlsym)
IMAE_OLD(dlvsym)
IMAE_OF_OLD_GLIBC(dlmopen, "2.3.4")

IMAE_OLD(pthread_condattr_setpshared)
IMAE_OLD(pthread_create)
IMAE_OLD(pthread_detach)
IMAE_OLD(pthread_getspecific)
IMAE_OLD(pthread_join)
IMAE_OLD(pthread_key_create)
IMAE_OLD(pthread_key_delete)
IMAE_OLD(pthread_kill)
IMAE_OLD(pthread_mutex_trylock)
IMAE_OLD(pthread_mutexattr_destroy)
IMAE_OLD(pthread_mutexattr_init)
IMAE_OLD(pthread_mutexattr_setpshared)
IMAE_OLD(pthread_mutexattr_settype)
IMAE_OLD(pthread_once)
IMAE_OLD(pthread_rwlock_destroy)
IMAE_OLD(pthread_rwlock_init)
IMAE_OLD(pthread_rwlock_rdlock)
IMAE_OLD(pthread_rwlock_timedrdlock)
IMAE_OLD(pthread_rwlock_timedwrlock)
IMAE_OLD(pthread_rwlock_tryrdlock)
IMAE_OLD(pthread_rwlock_trywrlock)
IMAE_OLD(pthread_rwlock_unlock)
IMAE_OLD(pthread_rwlock_wrlock)
IMAE_OLD(pthread_rwlockattr_destroy)
IMAE_OLD(pthread_rwlockattr_init)
IMAE_OLD(pthread_rwlockattr_setpshared)
IMAE_OLD(pthread_setspecific)
IMAE_OLD(pthread_spin_destroy)
IMAE_OLD(pthread_spin_init)
IMAE_OLD(pthread_spin_lock)
IMAE_OLD(pthread_spin_trylock)
IMAE_OLD(pthread_spin_unlock)

IMAE_OLD(sem_destroy)
IMAE_OLD(sem_init)
IMAE_OLD(sem_post)
IMAE_OLD(sem_timedwait)
IMAE_OLD(sem_trywait)
IMAE_OLD(sem_wait)
IMAE_OLD(shm_open)
IMAE_OLD(shm_unlink)

#endif
