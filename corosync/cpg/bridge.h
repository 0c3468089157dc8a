#include <stdint.h>
#include <corosync/cpg.h>

/* The context of a connection: what its callbacks find. */
struct pmx_cpg {
	uintptr_t conn; /* cgo.Handle of the Conn */
	size_t bytes;   /* delivered by the running pmx_cpg_dispatch */
};

cs_error_t pmx_cpg_initialize(cpg_handle_t *handle, struct pmx_cpg *context);
cs_error_t pmx_cpg_dispatch(cpg_handle_t handle, struct pmx_cpg *context, int max_events, size_t max_bytes);
cs_error_t pmx_cpg_mcast(cpg_handle_t handle, unsigned int n,
	const void *p0, size_t n0, const void *p1, size_t n1,
	const void *p2, size_t n2, const void *p3, size_t n3);
