/*
 * A libqb peer for tests. See peer.go for the commands.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <qb/qbipcc.h>
#include <qb/qbipcs.h>
#include <qb/qbloop.h>

enum { BUFFER = 1 << 20 };

static void die(const char *what)
{
	fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* --- echo NAME: a bare server. A request's data is the length of the reply's data. --- */

static qb_loop_t *loop;
static char filler[BUFFER];

static int32_t job_add(enum qb_loop_priority p, void *data, qb_loop_job_dispatch_fn fn)
{
	return qb_loop_job_add(loop, p, data, fn);
}

static int32_t dispatch_add(enum qb_loop_priority p, int32_t fd, int32_t ev, void *data, qb_ipcs_dispatch_fn_t fn)
{
	return qb_loop_poll_add(loop, p, fd, ev, data, fn);
}

static int32_t dispatch_mod(enum qb_loop_priority p, int32_t fd, int32_t ev, void *data, qb_ipcs_dispatch_fn_t fn)
{
	return qb_loop_poll_mod(loop, p, fd, ev, data, fn);
}

static int32_t dispatch_del(int32_t fd)
{
	return qb_loop_poll_del(loop, fd);
}

static int32_t echo(qb_ipcs_connection_t *c, void *data, size_t size)
{
	struct qb_ipc_request_header *in = data;
	struct qb_ipc_response_header out = { .id = in->id, .size = sizeof(out) };
	struct iovec iov[2] = { { &out, sizeof(out) }, { filler, 0 } };
	uint32_t len;

	if (size >= sizeof(*in) + sizeof(len)) {
		memcpy(&len, in + 1, sizeof(len));
		iov[1].iov_len = len;
		out.size += len;
	}
	qb_ipcs_response_sendv(c, iov, iov[1].iov_len ? 2 : 1);
	return 0;
}

static int32_t stdin_closed(int32_t fd, int32_t revents, void *data)
{
	char b[16];

	(void)revents;
	(void)data;
	if (read(fd, b, sizeof(b)) <= 0)
		qb_loop_stop(loop);
	return 0;
}

static int serve(const char *name)
{
	struct qb_ipcs_service_handlers h = { .msg_process = echo };
	struct qb_ipcs_poll_handlers p = { job_add, dispatch_add, dispatch_mod, dispatch_del };
	qb_ipcs_service_t *s;

	memset(filler, 1, sizeof(filler)); /* or all of it is one page of memory */
	loop = qb_loop_create();
	s = qb_ipcs_create(name, 1, QB_IPC_SHM, &h);
	qb_ipcs_enforce_buffer_size(s, BUFFER);
	qb_ipcs_poll_handlers_set(s, &p);
	if (qb_ipcs_run(s) != 0)
		die("run");
	qb_loop_poll_add(loop, QB_LOOP_LOW, 0, POLLIN, NULL, stdin_closed);
	puts("ready");
	fflush(stdout);
	qb_loop_run(loop);
	qb_ipcs_destroy(s);
	return 0;
}

/* --- what no well-behaved client does to its own rings: see Poke, Cut, Churn and Bell --- */

/* open_ring opens the file behind a ring, which is of the client's mappings; -1: it is gone. */
static int open_ring(const char *ring, const char *part)
{
	char line[PATH_MAX + 200], want[64], *path = NULL;
	FILE *maps = fopen("/proc/self/maps", "r");
	int fd = -1;

	snprintf(want, sizeof(want), "/qb-%s-", ring);
	while (maps != NULL && fd < 0 && fgets(line, sizeof(line), maps)) {
		size_t n = strcspn(line, "\n");

		line[n] = 0;
		path = strchr(line, '/');
		if (path != NULL && strstr(path, want) && n > strlen(part) && !strcmp(line + n - strlen(part), part))
			fd = open(path, O_RDWR);
	}
	fclose(maps);
	return fd;
}

/* churn writes two values in turn to one place until the process that started it ends. */
static pid_t churn(const char *ring, const char *part, long offset, uint32_t a, uint32_t b)
{
	int fd = open_ring(ring, part);
	pid_t parent = getpid(), child = fork();

	if (child == 0) {
		volatile uint32_t *w = mmap(NULL, (size_t)offset + 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		w += offset / 4;
		while (getppid() == parent)
			for (int i = 0; i < 1000; i++)
				*w = i & 1 ? a : b;
		_exit(0);
	}
	close(fd);
	return child;
}

/* --- client NAME: commands on stdin, an answer line each. --- */

static int client(const char *name, int max)
{
	qb_ipcc_connection_t *c = qb_ipcc_connect(name, (size_t)max);
	static char msg[2 * BUFFER], line[256];
	struct qb_ipc_request_header *h = (void *)msg;
	struct qb_ipc_response_header *r = (void *)msg;
	int id, claimed, len, count, ms;
	char ring[32], part[32];
	pid_t churning = 0;
	unsigned a, b;
	long offset;

	if (c == NULL) {
		printf("refused %d\n", errno);
		return 0;
	}
	printf("connected %d\n", qb_ipcc_get_buffer_size(c));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "send %d %d %d %d", &id, &claimed, &len, &count) == 4) {
			/* data of len - 16 bytes follows */
			ssize_t n = 0;
			int i;

			memset(h, 0, sizeof(*h));
			if (len > 16 && fread(msg + 16, 1, (size_t)len - 16, stdin) != (size_t)len - 16)
				die("short data");
			h->id = id;
			h->size = claimed;
			for (i = 0; i < count; i++) {
				n = qb_ipcc_send(c, msg, (size_t)len);
				if (n < 0)
					break;
			}
			printf("sent %d %zd\n", i, n);
		} else if (sscanf(line, "recv %d", &ms) == 1) {
			ssize_t n = qb_ipcc_recv(c, msg, BUFFER, ms);

			if (n < (ssize_t)sizeof(*r)) {
				printf("none %zd\n", n < 0 ? n : -EPROTO);
			} else {
				/* data follows */
				n -= (ssize_t)sizeof(*r);
				printf("reply %d %d %zd\n", r->id, r->error, n);
				fwrite(r + 1, 1, (size_t)n, stdout);
			}
		} else if (sscanf(line, "poke %31s %31s %ld %d", ring, part, &offset, &len) == 4) {
			/* data of len follows */
			int fd = open_ring(ring, part);

			if (fread(msg, 1, (size_t)len, stdin) != (size_t)len)
				die("short data");
			puts(pwrite(fd, msg, (size_t)len, offset) == len ? "done" : "gone");
			close(fd);
		} else if (sscanf(line, "cut %31s %31s %ld", ring, part, &offset) == 3) {
			int fd = open_ring(ring, part);

			puts(ftruncate(fd, offset) == 0 ? "done" : "gone");
			close(fd);
		} else if (sscanf(line, "churn %31s %31s %ld %u %u", ring, part, &offset, &a, &b) == 5) {
			churning = churn(ring, part, offset, a, b);
			puts("done");
		} else if (sscanf(line, "bell %d", &count) == 1) {
			int fd = -1;

			qb_ipcc_fd_get(c, &fd);
			memset(msg, 7, sizeof(msg));
			/* The server may have hung up. */
			(void)!send(fd, msg, (size_t)count, MSG_NOSIGNAL | MSG_DONTWAIT);
			puts("done");
		} else {
			break;
		}
		fflush(stdout);
	}
	if (churning > 0)
		kill(churning, SIGKILL);
	qb_ipcc_disconnect(c);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "echo"))
		return serve(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "client"))
		return client(argv[2], atoi(argv[3]));
	fprintf(stderr, "usage: peer echo NAME | client NAME MAX\n");
	return 2;
}
