// defend_connections has every connection that this process opens from now on refuse
// what can damage a file: changes of the schema as text, of shadow tables, and
// journal_mode=OFF. It returns 0, or an error of SQLite's.
int defend_connections(void);
