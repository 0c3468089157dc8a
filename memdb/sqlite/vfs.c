#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vfs.h"

// SQLite writes the log in two pieces for each page, a header of 24 bytes and the
// page, with a system call each: five for a small transaction, 260 for one of half a
// megabyte. Below it, this puts together what lies together. Nobody looks at the pages of a
// transaction before the last of them is written, which the header says that it is;
// that write has everything written before it returns, and reports what went
// wrong. What is not simply appended (an earlier header that is made anew, the beginning
// of the log) goes straight through.

// What is used of SQLite's interface (https://sqlite.org/c3ref/vfs.html), which never
// changes.
typedef struct sqlite3_file sqlite3_file;
typedef struct sqlite3_vfs sqlite3_vfs;
typedef int64_t sqlite3_int64;

typedef struct {
	int iVersion;
	int (*xClose)(sqlite3_file *);
	int (*xRead)(sqlite3_file *, void *, int, sqlite3_int64);
	int (*xWrite)(sqlite3_file *, const void *, int, sqlite3_int64);
	int (*xTruncate)(sqlite3_file *, sqlite3_int64);
	int (*xSync)(sqlite3_file *, int);
	int (*xFileSize)(sqlite3_file *, sqlite3_int64 *);
	int (*xLock)(sqlite3_file *, int);
	int (*xUnlock)(sqlite3_file *, int);
	int (*xCheckReservedLock)(sqlite3_file *, int *);
	int (*xFileControl)(sqlite3_file *, int, void *);
	int (*xSectorSize)(sqlite3_file *);
	int (*xDeviceCharacteristics)(sqlite3_file *);
} methods; // those of version 1

struct sqlite3_file {
	const methods *pMethods;
};

struct sqlite3_vfs {
	int iVersion, szOsFile, mxPathname;
	sqlite3_vfs *pNext;
	const char *zName;
	void *pAppData;
	int (*xOpen)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
	void *rest[15]; // of versions 1 to 3
};

extern sqlite3_vfs *sqlite3_vfs_find(const char *);
extern int sqlite3_vfs_register(sqlite3_vfs *, int);

enum {
	OK = 0,
	NOMEM = 7,
	IS_WAL = 0x00080000, // SQLITE_OPEN_WAL
	FRAME_HEADER = 24,
	ROOM = 64 << 10, // what a processor's cache still holds
};

typedef struct {
	sqlite3_file base;
	sqlite3_int64 at;  // where what is kept belongs
	sqlite3_int64 end; // of all that was ever appended
	int kept;          // bytes
	int last;          // the header kept last is of a transaction's last page
	int header;        // what was kept last is a header
	unsigned char *room;
	// The file below follows.
} logfile;

static sqlite3_vfs *below;

static sqlite3_file *under(sqlite3_file *f) { return (sqlite3_file *)((logfile *)f + 1); }

static int flush(sqlite3_file *f)
{
	logfile *l = (logfile *)f;
	int n = l->kept;
	l->kept = 0;
	l->header = 0;
	return n == 0 ? OK : under(f)->pMethods->xWrite(under(f), l->room, n, l->at);
}

static int keep(sqlite3_file *f, const void *data, int n, sqlite3_int64 offset)
{
	logfile *l = (logfile *)f;
	if (l->kept + n > ROOM) {
		int err = flush(f);
		if (err != OK)
			return err;
	}
	if (l->kept == 0)
		l->at = offset;
	memcpy(l->room + l->kept, data, n);
	l->kept += n;
	l->end = offset + n;
	return OK;
}

static int write_log(sqlite3_file *f, const void *data, int n, sqlite3_int64 offset)
{
	logfile *l = (logfile *)f;
	int appended = l->kept > 0 ? offset == l->at + l->kept : offset >= l->end;
	if (appended && n == FRAME_HEADER && offset > 0) {
		int err = keep(f, data, n, offset);
		const unsigned char *size = (const unsigned char *)data + 4; // of the database, after a transaction
		l->last = (size[0] | size[1] | size[2] | size[3]) != 0;
		l->header = err == OK;
		return err;
	}
	if (appended && l->header && n <= ROOM - FRAME_HEADER) {
		int last = l->last, err = keep(f, data, n, offset);
		l->header = 0;
		return err == OK && last ? flush(f) : err;
	}
	int err = flush(f);
	if (err != OK)
		return err;
	if (offset == 0) // the log begins anew
		l->end = n;
	else if (offset + n > l->end)
		l->end = offset + n;
	return under(f)->pMethods->xWrite(under(f), data, n, offset);
}

static int close_log(sqlite3_file *f)
{
	int err = flush(f), failed = under(f)->pMethods->xClose(under(f));
	free(((logfile *)f)->room);
	return err != OK ? err : failed;
}

// FLUSHED is a method before which the file must be as SQLite believes it is.
#define FLUSHED(name, declared, passed) \
	static int name##_log declared \
	{ \
		int err = flush(f); \
		return err != OK ? err : under(f)->pMethods->name passed; \
	}

FLUSHED(xRead, (sqlite3_file *f, void *data, int n, sqlite3_int64 offset), (under(f), data, n, offset))
FLUSHED(xTruncate, (sqlite3_file *f, sqlite3_int64 size), (under(f), size))
FLUSHED(xSync, (sqlite3_file *f, int flags), (under(f), flags))
FLUSHED(xFileSize, (sqlite3_file *f, sqlite3_int64 *size), (under(f), size))
FLUSHED(xLock, (sqlite3_file *f, int lock), (under(f), lock))
FLUSHED(xUnlock, (sqlite3_file *f, int lock), (under(f), lock))
FLUSHED(xCheckReservedLock, (sqlite3_file *f, int *out), (under(f), out))
FLUSHED(xFileControl, (sqlite3_file *f, int op, void *arg), (under(f), op, arg))

static int xSectorSize_log(sqlite3_file *f) { return under(f)->pMethods->xSectorSize(under(f)); }
static int xDeviceCharacteristics_log(sqlite3_file *f) { return under(f)->pMethods->xDeviceCharacteristics(under(f)); }

static const methods log_methods = {
	1, close_log, xRead_log, write_log, xTruncate_log, xSync_log, xFileSize_log, xLock_log, xUnlock_log,
	xCheckReservedLock_log, xFileControl_log, xSectorSize_log, xDeviceCharacteristics_log,
};

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out)
{
	(void)vfs;
	if (!(flags & IS_WAL))
		return below->xOpen(below, name, f, flags, out);
	logfile *l = (logfile *)f;
	memset(l, 0, sizeof *l);
	if ((l->room = malloc(ROOM)) == NULL)
		return NOMEM;
	int err = below->xOpen(below, name, under(f), flags, out);
	if (err != OK) {
		free(l->room);
		if (under(f)->pMethods != NULL)
			under(f)->pMethods->xClose(under(f));
		return err;
	}
	l->base.pMethods = &log_methods;
	return OK;
}

int register_vfs(const char *name)
{
	static sqlite3_vfs ours;
	if ((below = sqlite3_vfs_find(NULL)) == NULL)
		return 1;
	// The methods of what is below that ours has not are good for both.
	size_t size = below->iVersion >= 3 ? sizeof ours : below->iVersion == 2 ? sizeof ours - 3 * sizeof(void *) : sizeof ours - 4 * sizeof(void *);
	memcpy(&ours, below, size);
	ours.pNext = NULL;
	ours.zName = name;
	ours.szOsFile = (int)sizeof(logfile) + below->szOsFile;
	ours.xOpen = open_file;
	return sqlite3_vfs_register(&ours, 0);
}
