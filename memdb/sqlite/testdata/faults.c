// A shim for LD_PRELOAD: makes the n-th call that changes a file named
// config.db* fail. It is steered by a struct in the file that FAULTS names.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct control {
	int32_t at;     // the call that fails, from 1; 0: none
	int32_t err;    // with this errno
	int32_t mode;   // 0: nothing is done, 1: it is done all the same, 2: this and all later calls fail
	int32_t count;  // calls seen
	int32_t fired;  // calls made to fail
};

static struct control *ctl;

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("FAULTS");
	int fd = path ? open(path, O_RDWR) : -1;
	if (fd < 0)
		return;
	void *p = mmap(NULL, sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		ctl = p;
}

static int ours(int fd)
{
	char link[64], path[4096];
	if (!ctl || !ctl->at)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0)
		return 0;
	path[n] = 0;
	char *base = strrchr(path, '/');
	return base && !strncmp(base, "/config.db", 10);
}

// fails decides about one call: 0 do it, 1 don't, 2 do it and say it failed.
static int fails(int fd)
{
	if (!ours(fd))
		return 0;
	int n = ++ctl->count;
	if (n != ctl->at && !(ctl->mode == 2 && n > ctl->at))
		return 0;
	ctl->fired++;
	return ctl->mode == 1 ? 2 : 1;
}

#define WRAP(ret, name, params, args)                                   \
	ret name params                                                 \
	{                                                               \
		static ret (*real) params;                              \
		if (!real)                                              \
			real = (ret (*) params)dlsym(RTLD_NEXT, #name); \
		int how = fails(fd);                                    \
		ret r = how == 1 ? -1 : real args;                      \
		if (!how)                                               \
			return r;                                       \
		errno = ctl->err;                                       \
		return -1;                                              \
	}

WRAP(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
WRAP(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t at), (fd, b, n, at))
WRAP(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t at), (fd, b, n, at))
WRAP(int, ftruncate, (int fd, off_t n), (fd, n))
WRAP(int, ftruncate64, (int fd, off64_t n), (fd, n))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
