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
//     the writer's path they would stall it for milliseconds. Under an unbroken
//     stream of writes the log would grow for ever, since it is only begun anew
//     when all of it has been copied; then the last few pages are copied while
//     the writer waits. When nothing has changed for some seconds, all of it is
//     copied: config.db alone then holds everything.
//   - Locking mode NORMAL: EXCLUSIVE would shut readers out.
//
// # When something fails
//
//   - A transaction that fails leaves the file as it was. If the failure leaves
//     doubts about the connection, the next transaction makes a new one.
//   - A COMMIT may fail and take effect all the same: its pages can lie in the
//     log, whole, and come to life when the log is read anew. Until a later
//     transaction has taken their place, what the rows held before is remembered,
//     and a new connection puts it back first.
//   - The lock that keeps a second daemon away is the database's inode's, so that it
//     holds whatever the options; another writer's transaction is noticed all the same.
//   - A log that was removed under the daemon is noticed within a second of writing,
//     too; SQLite still has it open, so all of it is brought into the database.
//   - A file that was removed or replaced under the daemon is noticed within a
//     second of writing, and neither it nor its successor is written to: the log of
//     one file brought into another would destroy that.
//   - After a failed fsync the kernel holds pages for clean that are not on the
//     disk. The next Sync copies all of the log into the main file instead.
//   - When writers outrun the disk, the log would grow without bound: past 24 MiB
//     a commit waits for a checkpoint first.
//
// # Files
//
// Read, IntegrityCheck, Create and Backup work on a file beside a running daemon
// or without one, and leave nothing beside it, even if a signal ends the program. A
// file may come from anywhere: nothing is read through a table that is not what a daemon
// makes, and SQLite's limits are set. Recover finds rows in a file that
// SQLite refuses, page by page; Repair makes a valid tree of any rows. Whatever
// stands in a file, neither loading nor repairing it panics.
//
// The file's layout is shared with the stock daemon; nothing is added to it.
//
// This is the only package that uses go-sqlite3.
package sqlite
