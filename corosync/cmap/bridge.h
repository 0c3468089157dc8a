#include <stdint.h>
#include <corosync/cmap.h>

cs_error_t pmx_cmap_track_add(cmap_handle_t handle, const char *key, int32_t type,
	uintptr_t conn, cmap_track_handle_t *track);
