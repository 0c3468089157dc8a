#include <stddef.h>

#include "defend.h"

// What is used of SQLite's interface (https://sqlite.org/c3ref/intro.html), which never
// changes.
extern int sqlite3_auto_extension(void (*)(void));
extern int sqlite3_db_config(void *, int, ...);

enum { DEFENSIVE = 1010 }; // SQLITE_DBCONFIG_DEFENSIVE

// defend is an extension's entry point: SQLite calls it for each new connection.
static int defend(void *connection, char **message, const void *api)
{
	(void)message;
	(void)api;
	return sqlite3_db_config(connection, DEFENSIVE, 1, (int *)NULL);
}

int defend_connections(void)
{
	return sqlite3_auto_extension((void (*)(void))defend);
}
