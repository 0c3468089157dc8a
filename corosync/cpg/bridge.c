#include <sys/uio.h>

#include "bridge.h"
#include "_cgo_export.h"

static struct pmx_cpg *context_of(cpg_handle_t handle)
{
	void *context = NULL;

	return cpg_context_get(handle, &context) == CS_OK ? context : NULL;
}

static void deliver(cpg_handle_t handle, const struct cpg_name *group,
	uint32_t nodeid, uint32_t pid, void *msg, size_t len)
{
	struct pmx_cpg *c = context_of(handle);

	if (c) {
		c->bytes += len;
		pmxCpgDeliver(c->conn, nodeid, pid, msg, len);
	}
}

static void confchg(cpg_handle_t handle, const struct cpg_name *group,
	const struct cpg_address *members, size_t n_members,
	const struct cpg_address *left, size_t n_left,
	const struct cpg_address *joined, size_t n_joined)
{
	struct pmx_cpg *c = context_of(handle);

	if (c)
		pmxCpgConfchg(c->conn, (struct cpg_address *)members, n_members,
			(struct cpg_address *)left, n_left, (struct cpg_address *)joined, n_joined);
}

cs_error_t pmx_cpg_initialize(cpg_handle_t *handle, struct pmx_cpg *context)
{
	cpg_model_v1_data_t model = {
		.model = CPG_MODEL_V1,
		.cpg_deliver_fn = deliver,
		.cpg_confchg_fn = confchg,
	};

	return cpg_model_initialize(handle, CPG_MODEL_V1, (cpg_model_data_t *)&model, context);
}

cs_error_t pmx_cpg_dispatch(cpg_handle_t handle, struct pmx_cpg *context, int max_events, size_t max_bytes)
{
	cs_error_t err = CS_OK;

	context->bytes = 0;
	while (err == CS_OK && max_events-- > 0 && context->bytes < max_bytes)
		err = cpg_dispatch(handle, CS_DISPATCH_ONE_NONBLOCKING);
	return err == CS_ERR_TRY_AGAIN ? CS_OK : err;
}

cs_error_t pmx_cpg_mcast(cpg_handle_t handle, unsigned int n,
	const void *p0, size_t n0, const void *p1, size_t n1,
	const void *p2, size_t n2, const void *p3, size_t n3)
{
	struct iovec iov[4] = {
		{ (void *)p0, n0 }, { (void *)p1, n1 }, { (void *)p2, n2 }, { (void *)p3, n3 },
	};

	return cpg_mcast_joined(handle, CPG_TYPE_AGREED, iov, n);
}
