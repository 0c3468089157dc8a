#include <stdint.h>
#include <corosync/votequorum.h>

cs_error_t pmx_votequorum_initialize(votequorum_handle_t *handle, uintptr_t conn);
