// register_vfs makes the file layer of vfs.c known to SQLite. It returns 0, or an error
// of SQLite's.
int register_vfs(const char *name);
