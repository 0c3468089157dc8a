#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// A guard waits, for months, and hardly ever does anything else. So it is C, and starts
// before Go's runtime does: a megabyte or two instead of thirty. What it is for is in
// guard.go, which also does what there is to do when a daemon can't end.

extern char **environ;

static const char *mount_point;
static _Atomic unsigned connection; // of the mount; 0: it has not been told

// answer_probes uses the mount when the daemon wants to know whether it answers, and
// takes in which connection it is. See mountprobe.go, which has the other end. It has a
// thread of its own, which a dead mount may hold up for ever.
static void *answer_probes(void *unused)
{
	(void)unused;
	char line[64];
	int answer = 0; // the first one says that the guard is there
	for (;;) {
		if (dprintf(STDOUT_FILENO, "answer %d\n", answer) < 0)
			return NULL;
		for (;;) {
			size_t n = 0;
			do {
				ssize_t got = read(STDIN_FILENO, line + n, 1);
				if (got < 0 && errno == EINTR)
					continue;
				if (got <= 0)
					return NULL;
				n++;
			} while (line[n - 1] != '\n' && n < sizeof line - 1);
			line[n] = '\0';
			if (strcmp(line, "probe\n") == 0)
				break;
			unsigned number;
			if (sscanf(line, "connection %u", &number) != 1)
				return NULL;
			connection = number;
		}
		// The kernel has no figures of its own, and nobody who watches the directory
		// hears of it, as of an open.
		struct statfs st;
		answer = statfs(mount_point, &st) == 0 ? 0 : errno;
	}
}

// may_be_dying tells whether a process shows any sign of having been killed.
static int may_be_dying(pid_t pid)
{
	char path[40], status[4096];
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, status, sizeof status - 1);
	close(fd);
	if (n <= 0)
		return 0;
	status[n] = '\0';
	const char *state = strstr(status, "\nState:\t");
	if (state != NULL && state[8] == 'Z')
		return 1;
	const char *keys[] = {"\nSigPnd:\t", "\nShdPnd:\t"};
	for (int i = 0; i < 2; i++) {
		const char *mask = strstr(status, keys[i]);
		if (mask != NULL && (strtoull(mask + strlen(keys[i]), NULL, 16) >> (SIGKILL - 1) & 1))
			return 1;
	}
	return 0;
}

// end_mount has the Go part judge and act. It is another process: the thread that uses
// the mount may be one that can't end, and this process with it.
static int end_mount(unsigned number)
{
	char text[16];
	snprintf(text, sizeof text, "%u", number);
	if (setenv("PMXCFS_GUARD_ENDS", text, 1) != 0)
		return 0;
	char *argv[] = {"pmxcfs: end of a mount", NULL};
	posix_spawnattr_t attr;
	sigset_t none;
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	pid_t child;
	int status, failed = posix_spawn(&child, "/proc/self/exe", NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	unsetenv("PMXCFS_GUARD_ENDS");
	if (failed)
		return 0;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void guard(pid_t daemon, int check_seconds, int grace_milliseconds)
{
	prctl(PR_SET_NAME, "pmxcfs-guard");
	// Signals for the whole control group are the daemon's to follow.
	const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGABRT, SIGPIPE};
	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		signal(ignored[i], SIG_IGN);
	sigset_t told; // that the thread has ended that started the guard
	sigemptyset(&told);
	sigaddset(&told, SIGUSR1);
	sigprocmask(SIG_BLOCK, &told, NULL);

	pthread_t probes;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	if (pthread_create(&probes, &small, answer_probes, NULL) != 0)
		_exit(1);
	const struct timespec check = {.tv_sec = check_seconds}, grace = {.tv_nsec = grace_milliseconds * 1000000L};
	while (getppid() == daemon) {
		sigtimedwait(&told, NULL, &check);
		nanosleep(&grace, NULL);
		unsigned number = connection;
		// A daemon that has ended leaves its children to others.
		if (number == 0 || getppid() != daemon || !may_be_dying(daemon))
			continue;
		if (end_mount(number))
			break;
	}
	_exit(0);
}

// become_guard runs before main, and before Go. PMXCFS_GUARD has the daemon's process id,
// the time between two looks in seconds, the time in milliseconds that a killed daemon has to
// end by itself, the node's name, and the mount point.
__attribute__((constructor)) static void become_guard(void)
{
	const char *task = getenv("PMXCFS_GUARD");
	if (task == NULL || getenv("PMXCFS_GUARD_ENDS") != NULL)
		return;
	int daemon, check, grace, end = 0;
	if (sscanf(task, "%d %d %d %*s %n", &daemon, &check, &grace, &end) != 3 || end == 0) {
		dprintf(STDERR_FILENO, "pmxcfs: PMXCFS_GUARD: \"%s\" is no task\n", task);
		_exit(1);
	}
	mount_point = task + end;
	guard(daemon, check, grace);
}
