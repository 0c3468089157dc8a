#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <qb/qbipcs.h>
#include <qb/qbloop.h>

#include "echo.h"

enum { BUFFER = 1 << 20 };

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

/* A request's data begins with the length of the response's. */
static int32_t echo(qb_ipcs_connection_t *c, void *data, size_t size)
{
	struct qb_ipc_request_header *in = data;
	struct qb_ipc_response_header out = { .id = in->id, .size = sizeof(out) };
	struct iovec iov[2] = { { &out, sizeof(out) }, { filler, 0 } };
	uint32_t len;

	if (size >= sizeof(*in) + sizeof(len)) {
		memcpy(&len, in + 1, sizeof(len));
		if (len > BUFFER - sizeof(out))
			len = BUFFER - sizeof(out);
		iov[1].iov_len = len;
		out.size += (int32_t)len;
	}
	qb_ipcs_response_sendv(c, iov, iov[1].iov_len ? 2 : 1);
	return 0;
}

static int32_t input_ended(int32_t fd, int32_t revents, void *data)
{
	char b[16];

	(void)revents;
	(void)data;
	if (read(fd, b, sizeof(b)) <= 0)
		qb_loop_stop(loop);
	return 0;
}

int bench_echo(const char *name)
{
	struct qb_ipcs_service_handlers handlers = { .msg_process = echo };
	struct qb_ipcs_poll_handlers poll = { job_add, dispatch_add, dispatch_mod, dispatch_del };
	qb_ipcs_service_t *s;
	int rc;

	memset(filler, 1, sizeof(filler)); /* or all of it is one page of memory */
	loop = qb_loop_create();
	s = qb_ipcs_create(name, 1, QB_IPC_SHM, &handlers);
	if (loop == NULL || s == NULL)
		return errno ? errno : ENOMEM;
	qb_ipcs_enforce_buffer_size(s, BUFFER);
	qb_ipcs_poll_handlers_set(s, &poll);
	rc = qb_ipcs_run(s);
	if (rc != 0)
		return -rc;
	rc = qb_loop_poll_add(loop, QB_LOOP_LOW, 0, POLLIN, NULL, input_ended);
	if (rc != 0)
		return -rc;
	puts("ready");
	fflush(stdout);
	qb_loop_run(loop);
	qb_ipcs_destroy(s);
	return 0;
}
