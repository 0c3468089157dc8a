#include "bridge.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "_cgo_export.h"

/*
 * The loop whose thread this is. libqb's poll callbacks have no context argument,
 * and they run on the thread that called into libqb.
 */
static __thread uintptr_t this_loop;

void bridge_bind(uintptr_t loop)
{
	this_loop = loop;
}

static int32_t dispatch_add(enum qb_loop_priority p, int32_t fd, int32_t events,
                            void *data, qb_ipcs_dispatch_fn_t fn)
{
	(void)p;
	return qbDispatchAdd(this_loop, fd, events, data, fn);
}

static int32_t dispatch_mod(enum qb_loop_priority p, int32_t fd, int32_t events,
                            void *data, qb_ipcs_dispatch_fn_t fn)
{
	(void)p;
	return qbDispatchMod(this_loop, fd, events, data, fn);
}

static int32_t dispatch_del(int32_t fd)
{
	return qbDispatchDel(this_loop, fd);
}

static int32_t job_add(enum qb_loop_priority p, void *data, qb_loop_job_dispatch_fn fn)
{
	(void)p;
	return qbJobAdd(this_loop, data, fn);
}

static int32_t accepted(qb_ipcs_connection_t *c, uid_t uid, gid_t gid)
{
	return qbAccept(this_loop, c, uid, gid);
}

static int32_t message(qb_ipcs_connection_t *c, void *data, size_t size)
{
	qbMessage(this_loop, c, data, size);
	/* "Back off": one request per notification byte, see doc.go. */
	return -ENOBUFS;
}

static int32_t closed(qb_ipcs_connection_t *c)
{
	(void)c;
	return 0;
}

/* Called for every connection that accepted() was called for, whatever became of it. */
static void destroyed(qb_ipcs_connection_t *c)
{
	qbDestroyed(this_loop, c);
}

qb_ipcs_service_t *bridge_create(const char *name, int32_t service_id, uint32_t buffer_size)
{
	struct qb_ipcs_service_handlers handlers = {
		.connection_accept = accepted,
		.msg_process = message,
		.connection_closed = closed,
		.connection_destroyed = destroyed,
	};
	struct qb_ipcs_poll_handlers poll = {
		.job_add = job_add,
		.dispatch_add = dispatch_add,
		.dispatch_mod = dispatch_mod,
		.dispatch_del = dispatch_del,
	};
	qb_ipcs_service_t *s = qb_ipcs_create(name, service_id, QB_IPC_SHM, &handlers);

	if (s == NULL)
		return NULL;
	qb_ipcs_enforce_buffer_size(s, buffer_size);
	qb_ipcs_poll_handlers_set(s, &poll);
	return s;
}

int32_t bridge_dispatch(qb_ipcs_dispatch_fn_t fn, int32_t fd, int32_t revents, void *data)
{
	return fn(fd, revents, data);
}

void bridge_job(qb_loop_job_dispatch_fn fn, void *data)
{
	fn(data);
}

int32_t bridge_client_pid(qb_ipcs_connection_t *c)
{
	struct qb_ipcs_connection_stats stats;

	/* Deprecated for its missing event_q_length; its successor allocates. */
	if (qb_ipcs_connection_stats_get(c, &stats, 0) != 0)
		return 0;
	return stats.client_pid;
}

/*
 * bridge_arrived gives the length of the ring's chunk that data is the beginning
 * of, or -1 if it can't be told. A chunk is preceded by two words, its length and a magic
 * number; this layout is shared by processes and so doesn't change. The
 * two words of a chunk that begins the ring are at the ring's other end, and nothing need
 * be mapped before it: rings begin on a page.
 */
int64_t bridge_arrived(const void *data)
{
	const volatile uint32_t *word = data;

	if (((uintptr_t)data & 4095) < 2 * sizeof(*word))
		return -1;
	if (word[-1] != 0xA1A1A1A1)
		return -1;
	return word[-2];
}

ssize_t bridge_reply(qb_ipcs_connection_t *c, int32_t id, int32_t error, const char *data, size_t len)
{
	struct qb_ipc_response_header header;
	struct iovec iov[2];

	memset(&header, 0, sizeof(header));
	header.id = id;
	header.size = (int32_t)(sizeof(header) + len);
	header.error = error;
	iov[0].iov_base = &header;
	iov[0].iov_len = sizeof(header);
	iov[1].iov_base = (void *)data;
	iov[1].iov_len = len;
	return qb_ipcs_response_sendv(c, iov, len > 0 ? 2 : 1);
}

qb_ipcc_connection_t *bridge_connect(const char *name, size_t max, int *err)
{
	qb_ipcc_connection_t *c;

	errno = 0;
	c = qb_ipcc_connect(name, max);
	*err = c == NULL ? errno : 0;
	return c;
}

/* bridge_call answers -EAGAIN if the request could not be sent yet, -ETIMEDOUT if no answer came. */
ssize_t bridge_call(qb_ipcc_connection_t *c, int32_t id, const char *data, size_t len,
                    void *reply, size_t reply_size, int32_t timeout_ms)
{
	struct qb_ipc_request_header header;
	struct iovec iov[2];
	int32_t left = timeout_ms, step;
	ssize_t rc;

	memset(&header, 0, sizeof(header));
	header.id = id;
	header.size = (int32_t)(sizeof(header) + len);
	iov[0].iov_base = &header;
	iov[0].iov_len = sizeof(header);
	iov[1].iov_base = (void *)data;
	iov[1].iov_len = len;
	rc = qb_ipcc_sendv(c, iov, len > 0 ? 2 : 1);
	if (rc < 0)
		return rc;
	/*
	 * What qb_ipcc_sendv_recv does, but it looks every 2 s only whether the server
	 * is still there.
	 */
	do {
		step = timeout_ms >= 0 && left < 100 ? left : 100;
		rc = qb_ipcc_recv(c, reply, reply_size, step);
		if (timeout_ms >= 0)
			left -= step;
	} while ((rc == -ETIMEDOUT || rc == -EAGAIN) && (timeout_ms < 0 || left > 0));
	return rc == -EAGAIN ? -ETIMEDOUT : rc;
}
