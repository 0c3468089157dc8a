#include <errno.h>
#include <string.h>
#include <time.h>

#include "requests.h"

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int bench_requests(const struct bench_request *r, int count, uint32_t *took)
{
	struct qb_ipc_request_header header;
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)r->data, r->len } };
	uint64_t before = now(), after;

	memset(&header, 0, sizeof(header));
	header.id = r->id;
	header.size = (int32_t)(sizeof(header) + r->len);
	for (int i = 0; i < count; i++) {
		ssize_t n = qb_ipcc_sendv_recv(r->conn, iov, r->len ? 2 : 1, r->reply, r->reply_size, 10000);

		if (n < 0)
			return (int)-n;
		if ((size_t)n < sizeof(struct qb_ipc_response_header))
			return EPROTO;
		if (((struct qb_ipc_response_header *)r->reply)->error != 0)
			return -((struct qb_ipc_response_header *)r->reply)->error;
		after = now();
		took[i] = after - before > UINT32_MAX ? UINT32_MAX : (uint32_t)(after - before);
		before = after;
	}
	return 0;
}
