/* What Go and the C side of this package share. */
#ifndef PMXCFS_QBCLIENT_BRIDGE_H
#define PMXCFS_QBCLIENT_BRIDGE_H

#include <stdint.h>
#include <sys/types.h>
#include <qb/qbipcc.h>

qb_ipcc_connection_t *bridge_connect(const char *name, size_t max, int32_t timeout_ms, int *err);
ssize_t bridge_call(qb_ipcc_connection_t *c, int32_t id, const char *data, size_t len,
                    void *reply, size_t reply_size, int32_t timeout_ms, const int32_t *closing);

#endif
