// Package sqlite keeps the configuration tree in its file, config.db: one
// table, one row per entry, and one row for the database's version.
//
// # Settings, and why
//
//   - One connection writes. Its statements are prepared once and run on the
//     driver's connection itself: database/sql's pool and locks cost more than a
//     small transaction.
//   - Journal mode WAL: readers (sqlite3 config.db .dump, a backup) see a
//     consistent file and never hold up the daemon.
//   - Synchronous NORMAL: a commit is in the file system's cache, so it
//     survives a kill; Sync brings it to the disk.
//   - Checkpoints run on a second connection, from a goroutine of their own: in
//     the writer's path they would stall it for milliseconds. The log starts over
//     only once all of it has been copied, so an unbroken stream of writes would make
//     it grow forever; in that case the writer waits while the last few pages are
//     copied. After some seconds without changes all of it is copied, and config.db
//     alone holds everything.
//   - Locking mode NORMAL: EXCLUSIVE would shut readers out.
//
// # When something fails
//
//   - A transaction that fails leaves the file as it was. If the connection may be
//     damaged, the next transaction opens a new one.
//   - A COMMIT may report a failure and take effect all the same: its pages can be
//     complete in the log and reappear when the log is read again. Until a later
//     transaction has replaced them, the former content of those rows is remembered
//     (inDoubt), and a new connection restores it first.
//   - The lock that keeps a second daemon out belongs to the database's inode, so it
//     holds whatever the options are. Transactions of other programs, which don't take the lock, are noticed.
//   - A log that was removed under the daemon is noticed within a second of writing.
//     SQLite still has it open, so all of it is copied into the database.
//   - A file that was removed or replaced under the daemon is noticed within a
//     second of writing, and neither it nor its successor is written to: copying the
//     log of one file into another would destroy that.
//   - After a failed fsync the kernel marks pages clean that are not on the disk. The
//     next Sync copies all of the log into the main file instead.
//   - If writers outrun the disk, the log would grow without bound: past 24 MiB
//     a commit waits for a checkpoint first.
//
// # Files
//
// Read, IntegrityCheck, Create and Backup work on a file with or without a running
// daemon, and leave nothing beside it, even if a signal ends the program. A file may come
// from anywhere: only a table exactly as a daemon makes it is read, and SQLite's
// limits are set. Recover finds rows in a file that SQLite refuses, page by page; Repair
// makes a valid tree of any rows. No content of a file makes loading or repairing panic.
//
// The file's layout is shared with the stock daemon; nothing is added to it.
//
// This and package history are the only ones that use go-sqlite3.
package sqlite
