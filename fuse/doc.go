// Package fuse is the mount: it shows the configuration tree as a file system,
// and turns the kernel's requests into reads of the tree and operations of a
// store. It knows nothing of how a change reaches other nodes.
//
// # What the kernel may cache, and why that is coherent
//
// Names, absences, attributes, directory listings and content are cached by the
// kernel for long (cacheTime). The kernel knows of changes through this mount. Any
// other change (another node's write, a transaction that failed) is queued for explicit
// invalidation where the kernel may have stale data. Goroutines of their own carry it
// out: never one that serves a request or applies changes, because the kernel may hold a
// lock until that very request is answered.
//
// Invalidation takes a moment, so nothing that must be exact relies on it:
//
//   - Each open for reading compares the entry's version with the one that the
//     kernel's pages are known to show, and lets it keep them only if they are
//     equal.
//   - A file opened for writing bypasses the kernel's pages, and a write has them
//     dropped before it returns, if anybody is reading through them. A write
//     with O_APPEND goes to the file's end in the tree, not to the end that the
//     kernel remembers.
//   - Content of special files is never cached.
//
// Writes are in the store before they return; the kernel's write-back cache
// stays off: with it, the kernel trusts its own idea of a file's size over
// ours. So there are no shared writable mappings; the stock daemon has none either.
//
// # Who may do what
//
// The mount has no default_permissions: each request is checked here (access.go), and names in
// directories that not everybody may search are not cached.
//
// # O_TRUNC
//
// Opening with O_TRUNC changes nothing yet: the handle's first write carries
// the truncation with it, in one operation, so that no reader ever sees the file
// empty in between. If nothing is written, close or fsync truncates.
//
// The kernel sends the truncation with the open (ATOMIC_O_TRUNC), and takes the file for empty
// from its answer to its next question. Nobody reads through its pages in that moment: the answer
// waits for those who do, and others bypass the pages (docs/kernel-cache.md).
package fuse
