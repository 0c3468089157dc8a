package ipc

// What the service answers from. All methods are called from several goroutines at a
// time. Bytes that they return are never changed afterwards by either side; bytes that
// they are given are valid only during the call.

// Configs is the configuration database. Its methods must not wait for a writer.
type Configs interface {
	// Changes returns a number that is another after each change: what was read after it
	// was asked for holds as long as it stays the same.
	Changes() uint64

	// ReadFile returns the content of the regular file at a canonical path (relative to
	// the mount, without leading, trailing or repeated slashes, no "." and no ".."),
	// or false if there is none: no entry, or a directory.
	ReadFile(path string) ([]byte, bool)

	// AppendGuests appends all guests with their configurations, ascending by VMID.
	AppendGuests([]Guest) []Guest

	// Guest returns one guest, or false.
	Guest(vmid uint32) (Guest, bool)
}

// Guest is a guest's configuration.
type Guest struct {
	VMID uint32
	// Conf is the file's content. As long as it doesn't change, the same slice should be
	// given every time: what was made of it is kept.
	Conf []byte
}

// Status is the status store.
type Status interface {
	// Version, ClusterInfo and GuestList return .version, .members and .vmlist. They are
	// called often: what they return should be kept ready.
	Version() []byte
	ClusterInfo() []byte
	GuestList() []byte

	// Set sets this node's value of key, of at most 255 bytes, and tells the other nodes; an
	// empty value deletes the key. An error is answered as the syscall.Errno in it, or EIO.
	Set(key string, value []byte) error

	// Get returns a node's value of key, or false. An empty node is this one.
	Get(node, key string) ([]byte, bool)
}

// LogEntry is a client's entry for the cluster log.
type LogEntry struct {
	Priority            uint8 // syslog's, 0 to 7
	PID                 uint32
	Ident, Tag, Message string // without their NULs; any bytes but NUL
}

// Log is the cluster log.
type Log interface {
	// Add stamps an entry with this node's name and the time, adds it and tells the
	// other nodes. An error is answered as the syscall.Errno in it, or EIO.
	Add(LogEntry) error

	// Dump returns the newest entries as .clusterlog shows them: at most max of all
	// users', or one user's if user is not empty.
	Dump(max int, user string) []byte
}

// RRD is the store of RRD samples.
type RRD interface {
	// Dump returns what .rrd shows, and a NUL at its end.
	Dump() []byte
}
