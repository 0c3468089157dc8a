#include "bridge.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>

qb_ipcc_connection_t *bridge_connect(const char *name, size_t max, int32_t timeout_ms, int *err)
{
	struct pollfd pfd = { .events = POLLIN };
	qb_ipcc_connection_t *c;
	int rc, answered;

	/*
	 * qb_ipcc_connect fails if a signal interrupts its wait for the answer, and
	 * waits for ever. Go's runtime sends itself signals all the time.
	 */
	errno = 0;
	c = qb_ipcc_connect_async(name, max, &pfd.fd);
	if (c == NULL) {
		/* EAGAIN: too many others are about to connect */
		*err = errno == EAGAIN ? EINPROGRESS : errno;
		return NULL;
	}
	do
		answered = poll(&pfd, 1, timeout_ms);
	while (answered == -1 && errno == EINTR);
	rc = qb_ipcc_connect_continue(c); /* frees c if it fails */
	*err = rc == 0 ? 0 : answered == 0 ? ETIMEDOUT : -rc;
	return rc == 0 ? c : NULL;
}

/*
 * bridge_call answers -EAGAIN if the request could not be sent yet, -ETIMEDOUT if no answer came,
 * in time or until *closing was set.
 */
ssize_t bridge_call(qb_ipcc_connection_t *c, int32_t id, const char *data, size_t len,
                    void *reply, size_t reply_size, int32_t timeout_ms, const int32_t *closing)
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
	} while ((rc == -ETIMEDOUT || rc == -EAGAIN) && (timeout_ms < 0 || left > 0) &&
	         !__atomic_load_n(closing, __ATOMIC_RELAXED));
	return rc == -EAGAIN ? -ETIMEDOUT : rc;
}
