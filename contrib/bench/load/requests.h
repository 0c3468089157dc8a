#include <stdint.h>
#include <sys/types.h>
#include <qb/qbipcc.h>

/* What bench_requests does; on the caller's side, C memory. */
struct bench_request {
	qb_ipcc_connection_t *conn;
	int32_t id;
	const void *data;
	size_t len;
	void *reply; /* of reply_size bytes */
	size_t reply_size;
};

/*
 * bench_requests makes count requests, one after the other, and notes how many
 * nanoseconds each took. It returns 0, or the errno of the request that failed.
 */
int bench_requests(const struct bench_request *r, int count, uint32_t *took);
