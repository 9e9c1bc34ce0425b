/* fake_clock.c - LD_PRELOAD: shifts the wall clock that a process sees by a number of nanoseconds, or stops it; both can change while it runs.
 *   cc -O2 -shared -fPIC -o fake_clock.so fake_clock.c
 *   FAKECLOCK=/path/to/file LD_PRELOAD=./fake_clock.so redis-server ...     the file holds two little-endian int64: the shift in ns; the time in ns at which the clock stands still, or 0
 * Unlike libfaketime it allocates nothing and asks the kernel directly, so it works under Debian's redis/valkey (jemalloc). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static int64_t zero[2]; static volatile int64_t *off = zero;
__attribute__((constructor)) static void init(void) {
  const char *p = getenv("FAKECLOCK"); if (!p) return;
  int fd = open(p, O_RDONLY | O_CLOEXEC); if (fd < 0) return;
  void *m = mmap(0, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0); close(fd);
  if (m != MAP_FAILED) off = m;
}
static void shift(struct timespec *t) { int64_t stop = off[1], n = stop ? stop : (int64_t)t->tv_sec * 1000000000LL + t->tv_nsec + off[0]; t->tv_sec = n / 1000000000LL; t->tv_nsec = n % 1000000000LL; }
int clock_gettime(clockid_t c, struct timespec *t) {
  long r = syscall(SYS_clock_gettime, c, t);
  if (r == 0 && (c == CLOCK_REALTIME || c == CLOCK_REALTIME_COARSE)) shift(t);
  return (int)r;
}
int gettimeofday(struct timeval *tv, void *tz) { (void)tz; struct timespec t; if (clock_gettime(CLOCK_REALTIME, &t)) return -1; tv->tv_sec = t.tv_sec; tv->tv_usec = t.tv_nsec / 1000; return 0; }
time_t time(time_t *o) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t); if (o) *o = t.tv_sec; return t.tv_sec; }
