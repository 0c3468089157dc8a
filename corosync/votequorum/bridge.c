#include "bridge.h"
#include "_cgo_export.h"

/* The context of a connection is the cgo.Handle of its Conn; 0: none. */
static uintptr_t conn_of(votequorum_handle_t handle)
{
	void *context = NULL;

	return votequorum_context_get(handle, &context) == CS_OK ? (uintptr_t)context : 0;
}

static void on_quorum(votequorum_handle_t handle, uint64_t context,
	uint32_t quorate, uint32_t n, votequorum_node_t *nodes)
{
	uintptr_t conn = conn_of(handle);

	if (conn)
		pmxVotequorumQuorum(conn, quorate, n, nodes);
}

static void on_expected(votequorum_handle_t handle, uint64_t context, uint32_t votes)
{
	uintptr_t conn = conn_of(handle);

	if (conn)
		pmxVotequorumExpected(conn, votes);
}

static void on_nodelist(votequorum_handle_t handle, uint64_t context,
	votequorum_ring_id_t ring, uint32_t n, uint32_t *nodes)
{
	uintptr_t conn = conn_of(handle);

	if (conn)
		pmxVotequorumNodeList(conn, ring.nodeid, ring.seq, n, nodes);
}

cs_error_t pmx_votequorum_initialize(votequorum_handle_t *handle, uintptr_t conn)
{
	votequorum_callbacks_t callbacks = {
		.votequorum_quorum_notify_fn = on_quorum,
		.votequorum_expectedvotes_notify_fn = on_expected,
		.votequorum_nodelist_notify_fn = on_nodelist,
	};
	cs_error_t err = votequorum_initialize(handle, &callbacks);

	if (err != CS_OK)
		return err;
	err = votequorum_context_set(*handle, (void *)conn);
	if (err != CS_OK)
		votequorum_finalize(*handle);
	return err;
}
