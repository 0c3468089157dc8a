/* bench_echo serves until standard input ends. It returns 0 or an errno. */
int bench_echo(const char *name);
