/* What Go and the C side of this package share. */
#ifndef PMXCFS_QB_BRIDGE_H
#define PMXCFS_QB_BRIDGE_H

#include <stdint.h>
#include <sys/types.h>
#include <qb/qbipcc.h>
#include <qb/qbipcs.h>

/* What a call returns that was cut short because a client took a ring's memory away. */
enum { BRIDGE_FAULT = -0x7fffffff };

enum { BRIDGE_HEADER = sizeof(struct qb_ipc_request_header), BRIDGE_SMALL = 1024 };

/* Server side. All of it on the loop's thread. */
void bridge_bind(uintptr_t loop);
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
                    void *reply, size_t reply_size, int32_t timeout_ms);

#endif
