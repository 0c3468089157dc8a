package daemon

import "time"

// Options are the daemon's, after defaults and root have been applied: every
// path is absolute.
type Options struct {
	Version string // of this program

	Debug           bool
	Foreground      bool
	Local           bool // ignore corosync.conf, force quorum
	ForceDuplicates bool
	UnguardedConf   bool // corosync gets every corosync.conf of the tree
	IgnoreChmod     bool // chmod and chown to anything succeed, and change nothing

	MountPoint   string
	Database     string
	LockFile     string
	RunDir       string
	PidFile      string
	CorosyncConf string
	RRDDir       string
	RRDSocket    string

	IPCName  string // empty means no service
	NodeName string // empty means the host's name
	Address  string // empty means what the node's name resolves to
	Group    string

	LogFile string // empty means journal or syslog only

	Listen    string // TCP address of the metrics; empty means none
	WebConfig string // file that asks for TLS and passwords there; empty means none
	Socket    string // the Unix socket for root; empty means none
	NoMetrics bool   // observe nothing

	HistorySize    int64         // bytes that the history may take; 0: there is none
	HistoryAge     time.Duration // how old a change in it may be; 0: any age
	HistoryExclude []string      // patterns of paths that it leaves out
}
