/* What Go and the C side of this package share. */
#ifndef PMXCFS_QB_BRIDGE_H
#define PMXCFS_QB_BRIDGE_H

#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <qb/qbipcc.h>
#include <qb/qbipcs.h>

/* What a call returns that was cut short because a client took a ring's memory away. */
enum { BRIDGE_FAULT = -0x7fffffff };

enum {
	BRIDGE_HEADER = sizeof(struct qb_ipc_request_header),
	BRIDGE_SMALL = 1024,  /* a request up to which its data is copied in C */
	BRIDGE_ANSWER = 4096, /* an answer up to which it is sent from C */
	BRIDGE_EVENTS = 64,
};

/* A descriptor whose requests are served without a return to Go in between. */
struct bridge_hot {
	qb_ipcs_dispatch_fn_t fn; /* NULL: it isn't one */
	void *data;
	int32_t generation; /* of the descriptor's user, as in its events */
};

/* A loop. All of it belongs to the loop's thread. */
struct bridge_loop {
	uintptr_t handle; /* the server's, for calls into Go */
	int epfd;
	int attention;    /* there is something that Go has to do */
	size_t ring_size; /* of the service's rings, in bytes */

	struct bridge_hot *hot; /* by descriptor */
	int32_t hots;

	struct epoll_event events[BRIDGE_EVENTS];
	int next, count; /* events that nobody has dealt with */

	struct epoll_event failed; /* the event whose dispatch failed; events 0: none did */
	int32_t failure;           /* what it returned */
};

/* An answer to a request, to be sent from C. */
struct bridge_answer {
	int32_t error;
	size_t len;
	char data[BRIDGE_ANSWER];
};

/* Server side. All of it on the loop's thread, but for these two. */
struct bridge_loop *bridge_new(int epfd);
void bridge_free(struct bridge_loop *l);

void bridge_bind(struct bridge_loop *l, uintptr_t handle);
int bridge_wait(struct bridge_loop *l, int timeout_ms);
void bridge_heat(struct bridge_loop *l, int32_t fd, int32_t generation, qb_ipcs_dispatch_fn_t fn, void *data);
void bridge_cool(struct bridge_loop *l, int32_t fd);
qb_ipcs_service_t *bridge_create(const char *name, int32_t service_id, uint32_t buffer_size);
int32_t bridge_dispatch(qb_ipcs_dispatch_fn_t fn, int32_t fd, int32_t revents, void *data);
void bridge_job(qb_loop_job_dispatch_fn fn, void *data);
int32_t bridge_client_pid(qb_ipcs_connection_t *c);
int bridge_copy(void *dst, const void *src, size_t n);
int bridge_trapped(void);
ssize_t bridge_reply(qb_ipcs_connection_t *c, int32_t id, int32_t error, const char *data, size_t len);

/* Client side. */
qb_ipcc_connection_t *bridge_connect(const char *name, size_t max, int32_t timeout_ms, int *err);
ssize_t bridge_call(qb_ipcc_connection_t *c, int32_t id, const char *data, size_t len,
                    void *reply, size_t reply_size, int32_t timeout_ms, const int32_t *closing);

#endif
