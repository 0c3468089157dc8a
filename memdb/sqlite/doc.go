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
//     the writer waits.
//   - Locking mode NORMAL: EXCLUSIVE would shut readers out.
//
// The file's layout is shared with the stock daemon; nothing is added to it.
//
// This is the only package that uses go-sqlite3.
package sqlite
