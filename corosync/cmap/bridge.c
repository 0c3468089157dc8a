#include "bridge.h"
#include "_cgo_export.h"

static void on_change(cmap_handle_t handle, cmap_track_handle_t track, int32_t event,
	const char *key, struct cmap_notify_value new_value, struct cmap_notify_value old_value,
	void *conn)
{
	pmxCmapNotify((uintptr_t)conn, track, event, (char *)key,
		new_value.type, (void *)new_value.data, new_value.len,
		old_value.type, (void *)old_value.data, old_value.len);
}

cs_error_t pmx_cmap_track_add(cmap_handle_t handle, const char *key, int32_t type,
	uintptr_t conn, cmap_track_handle_t *track)
{
	return cmap_track_add(handle, key, type, on_change, (void *)conn, track);
}
