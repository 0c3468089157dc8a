// Package history remembers every change of the tree, in a file of its own beside the
// database: who changed what and when, and what was there before.
//
// # Recording
//
// A [Recorder] is told of each change when it is stored (dcdb.Recorder). It puts it into a
// queue, which is all that the caller waits for; a goroutine of its own stores what is
// queued in one transaction, 5 s after the first change or as soon as 256 KiB have come
// together. The queue refers to entries of the tree, which never change: nothing is copied.
// The queue is bounded. What finds no room is not recorded, and that is: a [Gap] says which
// versions are missing, and the difference between what was recorded last and the tree as it
// then is follows as one change set. The same is done at the start if the tree is not the one
// that the file ends with, because the daemon was killed or ran without a history. So the
// states of all paths are right after every change set, whatever was lost in between.
//
// Whether the order is unbroken is known from the tree's root: each change names the root
// that it found and the one that it left.
//
// No failure of the file disturbs the daemon: a full disk is waited out, a damaged file is set
// aside and a new one begun, one of a newer version is left alone.
//
// # Reading
//
// A [Reader] reads the file, whether a daemon writes to it or not. A [Recorder.Next] follows
// the changes, those of the queue included.
package history
